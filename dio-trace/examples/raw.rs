use dio_trace::tracer::*;
use dio_trace_common::verdict::*;
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let a: Vec<String> = std::env::args().collect();
    let attach = match a[1].as_str() {
        "kprobe" => Some(Attach::Kprobe),
        "fentry" => Some(Attach::Fentry),
        _ => None,
    };
    let t0 = std::time::Instant::now();
    let mut t = Tracer::start(&Options {
        scope: Scope::System,
        attach,
        all: std::env::var_os("NOALL").is_none(),
    })?;
    eprintln!("started {:?} in {:?} {:?}", t.attach(), t0.elapsed(), t.coverage());
    let show = |e: Event| match e {
        Event::Request(r) => println!(
            "REQ {} pid={} tid={} api={} dev={}:{} ino={} pos={} len={} ret={} {} {} lat={} ev={:?}",
            String::from_utf8_lossy(&r.comm).trim_end_matches('\0'),
            r.tgid,
            r.tid,
            r.api,
            r.dev >> 20,
            r.dev & 0xfffff,
            r.ino,
            r.pos,
            r.len,
            r.ret,
            Verdict::from_u8(r.verdict).unwrap().as_str(),
            Outcome::from_u8(r.outcome).unwrap().as_str(),
            r.end_ns - r.begin_ns,
            r.evidence
        ),
        Event::File(f) => println!(
            "FILE ino={} mnt={} fs={} {:?}",
            f.ino,
            f.mnt_id,
            String::from_utf8_lossy(&f.fs_name).trim_end_matches('\0'),
            String::from_utf8_lossy(&f.names[..f.names_len as usize])
        ),
    };
    let mut child = tokio::process::Command::new(&a[2]).args(&a[3..]).spawn()?;
    loop {
        tokio::select! {
            e = t.next() => show(e?),
            s = child.wait() => { eprintln!("child {:?}", s?); break }
        }
    }
    let mut n = 0;
    let tot = t.stop(&mut |e| {
        n += 1;
        show(e)
    })?;
    eprintln!(
        "late {n} stats {:?} skipped {:?} missing {:?} counters {}",
        tot.stats,
        tot.skipped,
        tot.missing,
        tot.counters.len()
    );
    Ok(())
}
