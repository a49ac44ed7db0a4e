//! The `dio-trace` program; its command line is in the library's `cli` module.

fn main() -> std::process::ExitCode {
    dio_trace::cli::main()
}
