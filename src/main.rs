//! The program `baton`.

fn main() -> std::process::ExitCode {
    baton::cli::main()
}
