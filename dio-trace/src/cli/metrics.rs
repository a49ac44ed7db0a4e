//! `--metrics` and `--metrics-file`: serves the metrics of a run over HTTP, and writes them into a
//! directory of node_exporter's textfile collector.

use std::{
    convert::Infallible,
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::Args;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, body::Bytes, header, server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
    time::{Interval, interval, sleep, timeout},
};

use crate::{
    cli::{values::TO, version},
    enrich::Enricher,
    flow::{explained::ExplainedRequest, side_events::RejectedOpenRow},
    model::Totals,
    output::metrics::{Extra, Form, Metrics},
    util::stdio::note,
};

/// The port of `dio-trace serve`.
const PORT: u16 = 9836;
/// The file in the directory of `--metrics-file`.
const FILE: &str = "dio_trace.prom";
/// How often it is written.
const WRITE_EVERY: Duration = Duration::from_secs(15);
/// Most connections at a time, and how long one may last: a client that does not read holds nothing
/// up.
const CONNECTIONS: usize = 16;
const SLOW: Duration = Duration::from_secs(10);

/// Where metrics go.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct MetricsArgs {
    /// Serve metrics for Prometheus at http://ADDR/metrics: PORT (of 127.0.0.1) or ADDR:PORT
    /// (docs/metrics.md)
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = address, help_heading = TO)]
    metrics: Option<SocketAddr>,
    /// Write the metrics every 15 s to DIR/dio_trace.prom, for node_exporter's textfile collector
    #[arg(long, value_name = "DIR", help_heading = TO)]
    metrics_file: Option<PathBuf>,
    /// Further labels of the metrics; their values have no bound
    #[arg(long, value_enum, value_delimiter = ',', value_name = "LABEL", help_heading = TO)]
    label: Vec<Extra>,
}

impl MetricsArgs {
    /// These, or the default port if they name no destination.
    pub(super) fn or_default_port(mut self) -> Self {
        if self.metrics.is_none() && self.metrics_file.is_none() {
            self.metrics = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT));
        }
        self
    }
}

/// Parses the address to serve at; a port alone is one of this machine that others cannot reach.
fn address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| {
        format!("`{text}` is not an address: use PORT, or an IP address with a port (0.0.0.0:9836)")
    })
}

/// A request for the metrics; the text is sent back.
pub(super) struct Scrape {
    form: Form,
    reply: oneshot::Sender<String>,
}

/// What asks for the metrics.
pub(super) enum Asked {
    Scrape(Scrape),
    File,
}

/// The metrics of a run, and who gets them.
pub(super) struct Exporter {
    metrics: Metrics,
    scrapes: Option<mpsc::Receiver<Scrape>>,
    file: Option<(PathBuf, Interval)>,
    /// True if the file could not be written the last time.
    failed: bool,
}

impl Exporter {
    /// Opens what the options ask for; None if that is nothing.
    ///
    /// # Errors
    /// If the address cannot be listened to, or the file not be written.
    pub(super) async fn open(args: &MetricsArgs) -> Result<Option<Self>> {
        if args.metrics.is_none() && args.metrics_file.is_none() {
            return Ok(None);
        }
        let scrapes = match args.metrics {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let file =
            args.metrics_file.as_ref().map(|folder| (folder.join(FILE), interval(WRITE_EVERY)));
        if let Some((path, _)) = &file {
            write(path, "")?;
        }
        let build = vec![("version", version::TEXT.clone())];
        let metrics = Metrics::new(args.label.clone(), build);
        Ok(Some(Self { metrics, scrapes, file, failed: false }))
    }

    pub(super) fn count(&mut self, record: &ExplainedRequest) {
        self.metrics.count(record);
    }

    /// Looks up what the counted findings need of their processes, which may end soon.
    pub(super) fn settle(&mut self, enricher: &mut Enricher) {
        self.metrics.settle(enricher);
    }

    pub(super) fn count_rejected_open(&mut self, row: &RejectedOpenRow) {
        self.metrics.count_rejected_open(row);
    }

    /// Waits until somebody asks for the metrics.
    pub(super) async fn asked(exporter: &mut Option<Self>) -> Asked {
        let Some(Self { scrapes, file, .. }) = exporter else {
            return std::future::pending().await;
        };
        tokio::select! {
            scrape = scrape(scrapes) => Asked::Scrape(scrape),
            () = tick(file) => Asked::File,
        }
    }

    /// Gives the metrics to who asked. A file that cannot be written is said once.
    ///
    /// # Errors
    /// If the metrics cannot be written as text.
    pub(super) fn answer(
        &mut self,
        asked: Asked,
        totals: &Totals,
        enricher: &mut Enricher,
    ) -> Result<()> {
        match (asked, &self.file) {
            (Asked::Scrape(Scrape { form, reply }), _) => {
                let text = self.metrics.text(form, totals, enricher)?;
                drop(reply.send(text)); // the client may have gone
            }
            (Asked::File, Some((path, _))) => {
                let text = self.metrics.text(Form::Prometheus, totals, enricher)?;
                let result = write(path, &text);
                if let Err(error) = &result
                    && !self.failed
                {
                    note!("note: the metrics are not written any more: {error:#}");
                }
                self.failed = result.is_err();
            }
            (Asked::File, None) => {}
        }
        Ok(())
    }
}

async fn scrape(scrapes: &mut Option<mpsc::Receiver<Scrape>>) -> Scrape {
    match scrapes {
        Some(scrapes) => match scrapes.recv().await {
            Some(scrape) => scrape,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn tick(file: &mut Option<(PathBuf, Interval)>) {
    match file {
        Some((_, interval)) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// Writes a file whole or not at all, readable by everybody: the collector is another user.
fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".dio_trace.").tempfile_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
        file.persist(path)?;
        Ok(())
    };
    written().with_context(|| format!("cannot write {}", crate::util::escape::path(path)))
}

/// Listens at the address, and returns the requests for the metrics.
async fn listen(address: SocketAddr) -> Result<mpsc::Receiver<Scrape>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics at {address}"))?;
    note!("metrics: http://{}/metrics", listener.local_addr().unwrap_or(address));
    let (sender, receiver) = mpsc::channel(CONNECTIONS);
    tokio::spawn(serve(listener, sender));
    Ok(receiver)
}

async fn serve(listener: TcpListener, scrapes: mpsc::Sender<Scrape>) {
    /// After an error, such as too many open files.
    const PAUSE: Duration = Duration::from_millis(200);
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&free).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        let scrapes = scrapes.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, scrapes.clone()));
            let connection = http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            // A broken connection is the client's affair.
            let _ = timeout(SLOW, connection).await;
            drop(place);
        });
    }
}

async fn answer(
    request: Request<hyper::body::Incoming>,
    scrapes: mpsc::Sender<Scrape>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let page = |status, kind: &'static str, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        let kind = header::HeaderValue::from_static(kind);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    };
    const PLAIN: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return Ok(page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET /metrics\n".to_owned()));
    }
    if request.uri().path() != "/metrics" {
        return Ok(page(StatusCode::NOT_FOUND, PLAIN, "the metrics are at /metrics\n".to_owned()));
    }
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    let (reply, receiver) = oneshot::channel();
    let text = match scrapes.send(Scrape { form, reply }).await {
        Ok(()) => receiver.await.ok(),
        Err(_) => None,
    };
    Ok(match text {
        Some(text) => page(StatusCode::OK, form.content_type(), text),
        None => page(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "tracing has ended\n".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_not_reachable_from_outside() {
        for text in ["9836", ":9836"] {
            assert_eq!(address(text).unwrap().to_string(), "127.0.0.1:9836");
        }
        assert_eq!(address("0.0.0.0:1").unwrap().to_string(), "0.0.0.0:1");
        assert_eq!(address("[::1]:1").unwrap().to_string(), "[::1]:1");
        for bad in ["", "x", "70000", "1.2.3.4", "localhost:1"] {
            assert!(address(bad).unwrap_err().contains("use PORT"), "{bad}");
        }
    }

    #[test]
    fn the_file_is_whole_and_readable_by_the_collector() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        write(&path, "one\n").unwrap();
        write(&path, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
        let error = write(&folder.path().join("none/x"), "").unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write "), "{error:#}");
    }
}
