//! See the library.

fn main() -> std::process::ExitCode {
    dio_trace::cli::main()
}
