//! `cargo xtask kernel`: fetches and lists the kernels that VMs boot.
use anyhow::Result;
use clap::{Args, Subcommand};

use crate::vm::kernels::{self, SERIES};

#[derive(Args)]
pub(crate) struct KernelArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch kernels into the cache: 5.10, 6.1, 6.12, 6.18, 7.3, or `all`
    Fetch {
        #[arg(required = true)]
        series: Vec<String>,
        /// Fetch the newest point version even where one is cached
        #[arg(long)]
        refresh: bool,
    },
    /// List the kernels in the cache
    List,
}

pub(crate) fn main(args: &KernelArgs) -> Result<()> {
    match &args.verb {
        Verb::Fetch { series, refresh } => {
            let mut wanted: Vec<&str> = series.iter().map(String::as_str).collect();
            if wanted == ["all"] {
                wanted = SERIES.to_vec();
            }
            for series in wanted {
                if *refresh {
                    kernels::forget(series)?;
                }
                let kernel = kernels::debian(series)?;
                println!("{series}\t{}\t{}", kernel.version, kernel.image.display());
            }
        }
        Verb::List => {
            for series in SERIES {
                match kernels::cached(series)? {
                    Some(kernel) => {
                        println!("{series}\t{}\t{}", kernel.version, kernel.image.display());
                    }
                    None => println!("{series}\t-\tnot fetched"),
                }
            }
        }
    }
    Ok(())
}
