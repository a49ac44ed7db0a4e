//! Rule for network and FUSE clients whose requests went through this machine's page cache.

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const READ_ON: Rule = Rule {
    id: "client-cached",
    title: "a FUSE or network request went through the local cache",
    means: "Requests to a server go past this machine's page cache if the client lets them. A FUSE \
            daemon that opens without FOPEN_DIRECT_IO leaves the file in cached mode: O_DIRECT \
            still reaches it, but where its answer is short the kernel reads on through the page \
            cache. 9p with cache=loose or fscache does the same. Writes go on so after a short \
            answer as well.",
    proof: "The file is on such a client, and bytes of this request went through the page cache. \
            How the daemon opened the file cannot be asked: likely.",
    fix: "FUSE: let the daemon set FOPEN_DIRECT_IO (libfuse: `fi->direct_io = 1`) and answer in \
          full; 9p: mount with cache=none",
    on: "fuse, 9p",
    scenario: Scenario::Needs("a FUSE daemon that answers short"),
    test: cached,
};

fn cached(case: &Case<'_>) -> Option<Reason> {
    if !case.is_client() || !case.cached() {
        return None;
    }
    let (moved, asked) = (case.decision.direct_bytes, case.request.len);
    Some(Reason::likely(if case.fs.starts_with("fuse") || case.fs == "virtiofs" {
        format!(
            "the daemon answered {moved} of {asked} bytes and did not open the file with \
             FOPEN_DIRECT_IO: the rest went through the page cache"
        )
    } else {
        format!(
            "the mount's cache mode: {} served {} of {asked} bytes from the local page cache",
            case.fs, case.decision.cached_bytes
        )
    }))
}
