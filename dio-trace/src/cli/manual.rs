//! What the manual says of each verb besides its options: examples, exit codes, overhead. `--help`
//! has the same examples.

use std::fmt::Write as _;

use clap::Command;
use roff::{Roff, bold, roman};

/// A command line, and what it is for.
type Example = (&'static str, &'static str);

struct Manual {
    /// As on the command line; empty for the program itself.
    verb: &'static str,
    examples: &'static [Example],
    /// Exit codes, where they differ from those of the program.
    exit: Option<&'static str>,
    /// True if the verb attaches probes.
    traces: bool,
}

const EXIT: &str = "0 done, 1 failure, 2 usage, 3 --fail-on: a rule failed, 130 or 143 at a \
                    second SIGINT or SIGTERM. run exits with its command's code, 126 if it cannot \
                    be run, 127 if there is no such command.";

/// From docs/performance.md, as ratios: they hold on other machines too.
const OVERHEAD: &str = "Only requests on files that are open with O_DIRECT are followed to their \
    end. A 4 KiB direct read on a memory-backed null_blk executes about 15 % more instructions \
    than without a tracer, from the system call to its return; a direct write 19 %, a request of \
    libaio or io_uring with 32 in flight 40 %. A buffered read of 4 KiB executes about 11 % more, \
    and a read or write of anything else some 370 instructions. --all and record --all also send \
    an event for each request. --why-eagain probes functions that the whole system uses. Events \
    that the reader is too slow for are lost, counted and reported; the counters are exact all \
    the same. docs/performance.md compares this with other tracers.";

const MANUALS: &[Manual] = &[
    Manual {
        verb: "",
        examples: &[
            ("sudo dio-trace audit -d 10", "the whole system for ten seconds"),
            ("sudo dio-trace attach -p 1234", "a process and its descendants"),
            ("sudo dio-trace run -- fio job.fio", "a command, from its first request"),
            ("sudo dio-trace audit --json | jq .", "for programs"),
            ("sudo dio-trace top", "the whole system, live"),
            ("sudo dio-trace cache", "who fills the page cache"),
            ("dio-trace check /var/lib/db", "will it be direct there? no root"),
            ("dio-trace explain data-journal", "what a cause means; no root"),
            ("sudo dio-trace doctor", "what works here"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "run",
        examples: &[
            ("sudo dio-trace run -- fio job.fio", "a benchmark, from its first request"),
            ("sudo dio-trace run --by process -- ./load", "sums by process at the end"),
            ("sudo dio-trace run --fail-on fallback -- ./test.sh", "fail a CI job"),
            ("sudo dio-trace run --stack -- ./app", "which function makes the requests"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "attach",
        examples: &[
            ("sudo dio-trace attach -p 1234 -d 60", "a process tree for a minute"),
            ("sudo dio-trace attach postgres --by process", "all processes of that name"),
            ("sudo dio-trace attach --unit postgresql@18-main", "a systemd unit"),
            ("sudo dio-trace attach -p 1234 --all", "healthy requests too, a line each"),
            ("sudo dio-trace attach -p 1234 --why-eagain", "why RWF_NOWAIT gains nothing"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "audit",
        examples: &[
            ("sudo dio-trace audit -d 10", "the whole system for ten seconds"),
            ("sudo dio-trace audit --container 3f4a9c", "one container"),
            ("sudo dio-trace audit --pod prod/db-0 --by volume", "a Kubernetes pod, by volume"),
            ("sudo dio-trace audit --cause misaligned", "who passes misaligned buffers?"),
            ("sudo dio-trace audit --json -o out.jsonl", "JSON lines to a file"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "top",
        examples: &[
            ("sudo dio-trace top", "the whole system"),
            ("sudo dio-trace top -p 1234 --by file", "the files of a process tree"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "cache",
        examples: &[
            ("sudo dio-trace cache", "the whole system, live"),
            ("sudo dio-trace cache -d 30 --by process", "thirty seconds, by process"),
            ("sudo dio-trace cache attach -p 1234", "a process and its descendants"),
            ("sudo dio-trace cache run -- ./backup.sh", "what a command leaves behind"),
            ("sudo dio-trace cache --json -d 10 | jq .", "for programs"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "check",
        examples: &[
            ("dio-trace check /var/lib/postgresql", "forecast, then proof"),
            ("dio-trace check /var/lib/db --kernel 7.2", "what another kernel changes"),
            ("dio-trace check --no-probe --json /dev/nvme0n1", "reads nothing"),
        ],
        exit: Some("0 proven direct, 1 not direct, 2 unknown, or only a forecast."),
        traces: false,
    },
    Manual {
        verb: "doctor",
        examples: &[
            ("sudo dio-trace doctor", "with all probes attached for a moment"),
            ("dio-trace doctor --json", "for programs"),
        ],
        exit: Some("0 tracing works, 1 it does not."),
        traces: false,
    },
    Manual {
        verb: "record",
        examples: &[
            ("sudo dio-trace record -p 1234 -o r.dio -d 1h", "a process tree for an hour"),
            ("sudo dio-trace record --all audit -o r.dio", "every request of the system"),
            ("sudo dio-trace record --rotate 100M:10 audit -o r.dio", "the last ten files"),
            ("sudo dio-trace record --flight-recorder 64M audit -o r.dio", "until SIGUSR1"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "serve",
        examples: &[
            ("sudo dio-trace serve", "metrics at http://127.0.0.1:9836/metrics"),
            ("sudo dio-trace serve --metrics 0.0.0.0:9836", "for other machines, no password"),
            ("sudo dio-trace serve --metrics-file DIR", "for node_exporter's textfile collector"),
        ],
        exit: None,
        traces: true,
    },
    Manual {
        verb: "report",
        examples: &[
            ("dio-trace report r.dio", "as live tracing would show it"),
            ("dio-trace report r.dio --by cause", "sums by cause"),
            ("dio-trace report r.dio --since 14:32 --until 14:40", "a part"),
            ("dio-trace report r.dio --html page.html", "a page for a browser"),
        ],
        exit: None,
        traces: false,
    },
    Manual {
        verb: "inspect",
        examples: &[("dio-trace inspect r.dio", "its blocks, and what is damaged")],
        exit: None,
        traces: false,
    },
    Manual {
        verb: "export",
        examples: &[
            ("dio-trace export --format parquet -o r.parquet r.dio", "for DuckDB"),
            ("dio-trace export --format jsonl r.dio | jq .why", "for programs"),
            ("dio-trace export --format perfetto -o r.pftrace r.dio", "for ui.perfetto.dev"),
        ],
        exit: None,
        traces: false,
    },
    Manual {
        verb: "explain",
        examples: &[
            ("dio-trace explain", "all causes"),
            ("dio-trace explain misaligned data-journal", "two of them"),
        ],
        exit: None,
        traces: false,
    },
    Manual {
        verb: "completions",
        examples: &[("dio-trace completions zsh", "for a directory in fpath")],
        exit: None,
        traces: false,
    },
];

/// The manual of a page or a verb: `record-run` has that of `record`.
fn of(name: &str) -> Option<&'static Manual> {
    let verb = name.split('-').next().unwrap_or_default();
    MANUALS.iter().find(|manual| manual.verb == verb)
}

/// Adds the examples to the help of every verb and of the program.
pub(super) fn with_examples(command: Command) -> Command {
    let command = command.mut_subcommands(|verb| match of(verb.get_name()) {
        Some(manual) => {
            let help = examples(manual.examples);
            verb.after_help(help)
        }
        None => verb,
    });
    let program = of("").map(|manual| examples(manual.examples)).unwrap_or_default();
    command.after_help(format!("{program}\n\nExit codes:\n{}", wrapped(EXIT)))
}

/// Examples in two columns; a long command has its purpose on a line of its own.
fn examples(examples: &[Example]) -> String {
    /// Columns of the command where both share a line.
    const COMMAND: usize = 38;
    let mut text = "Examples:".to_owned();
    let narrow = examples.iter().all(|(command, _)| command.len() <= COMMAND);
    for (command, purpose) in examples {
        // Writing to a String does not fail.
        let _ = if narrow {
            write!(text, "\n  {command:COMMAND$} {purpose}")
        } else {
            write!(text, "\n  {command}\n        {purpose}")
        };
    }
    text
}

/// Text in lines of 78 columns, indented by two.
fn wrapped(text: &str) -> String {
    const COLUMNS: usize = 78;
    let mut lines = vec![String::from(" ")];
    for word in text.split_whitespace() {
        if lines.last().is_some_and(|line| line.len() + 1 + word.len() > COLUMNS) {
            lines.push(String::from(" "));
        }
        if let Some(line) = lines.last_mut() {
            line.push(' ');
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The sections of a man page that follow its options. `name` is that of the page without the
/// program's: empty, `attach`, `record-run`.
pub(super) fn sections(name: &str) -> Roff {
    let mut page = Roff::new();
    let Some(manual) = of(name) else { return page };
    page.control("SH", ["EXAMPLES"]);
    for (command, purpose) in manual.examples {
        page.control("TP", []);
        page.text([bold(*command)]);
        page.text([roman(*purpose)]);
    }
    page.control("SH", ["EXIT STATUS"]);
    page.text([roman(manual.exit.unwrap_or(EXIT))]);
    if manual.traces {
        page.control("SH", ["OVERHEAD"]);
        page.text([roman(OVERHEAD)]);
    }
    page.control("SH", ["SEE ALSO"]);
    page.text([roman(if name.is_empty() {
        "bpftrace(8), perf(1), strace(1), open(2), statx(2)"
    } else {
        "dio-trace(1)"
    })]);
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    #[test]
    fn every_example_is_a_valid_command_line() {
        for (command, _) in MANUALS.iter().flat_map(|manual| manual.examples) {
            let words = command.split(" | ").next().unwrap_or_default();
            let words = words.split(' ').skip_while(|word| *word == "sudo");
            let words: Vec<_> = words.map(Into::into).collect();
            assert!(args::parsed(&words).is_ok(), "{command}: {:?}", args::parsed(&words).err());
        }
    }

    #[test]
    fn every_verb_has_a_manual() {
        for verb in args::command().get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(of(verb.get_name()).is_some(), "{}", verb.get_name());
        }
    }
}
