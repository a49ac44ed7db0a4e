//! A Prometheus server scrapes dio-trace, and is asked for its totals by PromQL.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        contract::prometheus::{Scraped, Totals},
        fixtures::{self, ROOT},
        harness::{Traces, stop, wait_until_tracing},
        questions::{self, QuestionsReaderArgs},
    },
    host::cmd::{self, text},
};

#[derive(Args, Clone, Debug)]
pub(crate) struct PrometheusArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to write the row to
    #[arg(long)]
    out: PathBuf,
    /// The folder with prometheus and promtool
    #[arg(long)]
    programs: PathBuf,
    /// The folder with the rules
    #[arg(long)]
    rules: PathBuf,
    /// A file with a JSON list of expressions that have to be valid
    #[arg(long)]
    expressions: PathBuf,
}

const METRICS: &str = "127.0.0.1:9836";
const SERVER: &str = "127.0.0.1:9090";
const FILES: usize = 20;
const FILE_BYTES: usize = 16 << 10;
/// The longest time until the server has scraped: it starts under emulation.
const SCRAPING: Duration = Duration::from_secs(300);

pub(crate) fn main(args: &PrometheusArgs) -> Result<u8> {
    let places = fixtures::make_bare(&["ext4-512", "btrfs-zstd"])?;
    let folders: Vec<PathBuf> = places.iter().map(|place| place.path.join("files")).collect();
    for folder in &folders {
        fs::create_dir(folder)?;
        for number in 0..FILES {
            fs::write(folder.join(format!("{number:02}.seg")), vec![b'.'; FILE_BYTES])?;
        }
        cmd::output(Command::new("sync").arg("-f").arg(folder))?;
    }
    let json = Path::new("/tmp/audit.jsonl");
    let traces = Traces::new(Path::new("/tmp"), "prometheus");
    let mut tool = Command::new(&args.tool)
        .args(["audit", "--json", "-o", text(json)?, "--metrics", METRICS])
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    questions::reader(&QuestionsReaderArgs::of(folders))?;
    check_format(&args.programs.join("promtool"))?;
    let mut server = Server::start(args)?;
    server.wait_for("count(dio_trace_requests_total)")?;
    let start = Instant::now();
    let prometheus = server.totals()?;
    let seconds = start.elapsed().as_secs_f64();
    let expressions: Vec<String> = serde_json::from_str(&fs::read_to_string(&args.expressions)?)?;
    for expression in &expressions {
        server.ask(expression)?;
    }
    server.stop()?;
    stop(tool, &traces)?;
    let summary = summary(&fs::read_to_string(json)?)?;
    let row = Scraped { prometheus, summary, seconds };
    let mut out = File::create(&args.out).context("cannot write the row")?;
    writeln!(out, "{}", serde_json::to_string(&row)?)?;
    fixtures::clear(Path::new(ROOT))?;
    Ok(0)
}

/// Checks names, units and help texts of the metrics in the older text format, which promtool
/// knows.
fn check_format(promtool: &Path) -> Result<()> {
    let mut stream = TcpStream::connect(METRICS).context("cannot reach the metrics")?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, metrics) = answer.split_once("\r\n\r\n").context("no body")?;
    let out = cmd::fed(Command::new(promtool).args(["check", "metrics"]), metrics)?;
    let talk = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.success(), "promtool check metrics: {}\n{metrics}", talk.trim());
    Ok(())
}

/// The totals of dio-trace's summary.
fn summary(json: &str) -> Result<Totals> {
    let line = json.lines().find(|line| line.contains("\"kind\":\"summary\""));
    let summary: Value = serde_json::from_str(line.context("dio-trace wrote no summary")?)?;
    let number = |value: &Value| value.as_u64().context("not a number");
    let requests = summary["requests"].as_object().context("no requests")?;
    let requests: Result<BTreeMap<String, u64>> =
        requests.iter().map(|(verdict, n)| Ok((verdict.clone(), number(n)?))).collect();
    let mut requests = requests?;
    requests.retain(|_, n| *n != 0);
    Ok(Totals {
        requests,
        direct_bytes: number(&summary["bytes"]["direct"])?,
        cached_bytes: number(&summary["bytes"]["cached"])?,
        findings: number(&summary["findings"])?,
    })
}

struct Server {
    child: Child,
    promtool: PathBuf,
}

impl Server {
    fn start(args: &PrometheusArgs) -> Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 2s}}\n\
             rule_files: ['{}/dio-trace.rules.yml']\n\
             scrape_configs:\n- job_name: dio-trace\n  static_configs: [{{targets: ['{METRICS}']}}]\n",
            args.rules.display()
        );
        fs::write("/tmp/prometheus.yml", config)?;
        let child = Command::new(args.programs.join("prometheus"))
            .args(["--config.file=/tmp/prometheus.yml", "--storage.tsdb.path=/tmp/prometheus"])
            .arg(format!("--web.listen-address={SERVER}"))
            .stdout(Stdio::null())
            .stderr(File::create("/tmp/prometheus.log")?)
            .spawn()
            .context("cannot start prometheus")?;
        Ok(Self { child, promtool: args.programs.join("promtool") })
    }

    /// Waits until the expression has a value.
    fn wait_for(&mut self, expression: &str) -> Result<()> {
        let start = Instant::now();
        while self.ask(expression).unwrap_or_default().is_empty() {
            let log = || fs::read_to_string("/tmp/prometheus.log").unwrap_or_default();
            if let Some(status) = self.child.try_wait()? {
                bail!("prometheus ended ({status}): {}", log());
            }
            if start.elapsed() > SCRAPING {
                bail!("prometheus has scraped nothing: {}", log());
            }
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    }

    /// The samples of an instant query: labels and value.
    fn ask(&self, expression: &str) -> Result<Vec<(BTreeMap<String, String>, f64)>> {
        let server = format!("http://{SERVER}");
        let text = cmd::output(
            Command::new(&self.promtool)
                .args(["query", "instant", "-o", "json", &server, expression]),
        )?;
        let samples: Value = serde_json::from_str(&text)
            .with_context(|| format!("promtool's answer is not JSON: {text}"))?;
        let samples = samples.as_array().map_or(&[][..], Vec::as_slice);
        samples
            .iter()
            .map(|sample| {
                let labels = serde_json::from_value(sample["metric"].clone())?;
                let value = sample["value"][1].as_str().context("no value")?.parse()?;
                Ok((labels, value))
            })
            .collect()
    }

    fn one(&self, expression: &str) -> Result<u64> {
        let samples = self.ask(expression)?;
        ensure!(samples.len() < 2, "{expression} has {} values", samples.len());
        Ok(samples.first().map_or(0, |(_, value)| *value as u64))
    }

    fn totals(&self) -> Result<Totals> {
        let requests = self.ask("sum by (verdict) (dio_trace_requests_total)")?;
        let requests = requests
            .into_iter()
            .map(|(labels, value)| {
                let verdict = labels.get("verdict").context("no verdict")?.clone();
                Ok((verdict, value as u64))
            })
            .collect::<Result<_>>()?;
        Ok(Totals {
            requests,
            direct_bytes: self.one("sum(dio_trace_direct_bytes_total)")?,
            cached_bytes: self.one("sum(dio_trace_cached_bytes_total)")?,
            findings: self.one("sum(dio_trace_findings_total)")?,
        })
    }

    fn stop(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
