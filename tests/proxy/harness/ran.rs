//! The program run to its end, as an operator runs a command.

use std::process::Command;

/// What a command left behind.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Ran {
    /// Runs the program with these arguments.
    pub fn of<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let ran = Command::new(env!("CARGO_BIN_EXE_streamseal"))
            .args(arguments)
            .output()
            .unwrap();
        Self {
            code: ran.status.code().unwrap_or(-1),
            out: String::from_utf8(ran.stdout).unwrap(),
            err: String::from_utf8(ran.stderr).unwrap(),
        }
    }

    /// Its standard output, if it went well.
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its only line on standard error but for the log, if it failed with exit code 1.
    pub fn failed(self) -> String {
        assert_eq!(self.code, 1, "{self:?}");
        let said = self
            .err
            .lines()
            .find(|line| line.starts_with("streamseal: "));
        said.unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}
