//! The real curl.

use std::process::Command;

/// What came of a run.
#[derive(Debug)]
pub struct Curl {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Curl {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs curl. A machine without it fails the test.
pub fn curl(arguments: &[&str]) -> Curl {
    let mut command = Command::new("curl");
    // No .curlrc, no proxy of the environment, and an end in any case.
    command.args(["-q", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20"]).args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("curl cannot be run ({error}): install package curl"));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Curl { code: output.status.code(), stdout: output.stdout, stderr }
}
