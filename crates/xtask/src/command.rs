//! Other programs: run, heard out, and quoted when they fail.

use std::ffi::OsStr;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};

/// So much of what a failing program wrote is passed on.
const LAST_LINES: usize = 20;

/// A program that is to be run.
#[derive(Debug)]
pub(crate) struct Call {
    command: Command,
    input: Option<String>,
}

/// What a program that was heard out had to say.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    call: String,
}

impl Call {
    pub(crate) fn of(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: None }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn without(mut self, variable: &str) -> Self {
        self.command.env_remove(variable);
        self
    }

    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What the program reads on stdin, which is empty otherwise.
    pub(crate) fn input(mut self, text: impl Into<String>) -> Self {
        self.input = Some(text.into());
        self
    }

    /// Out of reach of Ctrl-C, which a terminal sends to the whole foreground group.
    pub(crate) fn sheltered(mut self) -> Self {
        self.command.process_group(0);
        self
    }

    /// Runs it with our own stdout and stderr. An exit other than 0 is an error.
    pub(crate) fn show(mut self) -> Result<()> {
        let call = self.to_string();
        let status = self.command.stdin(Stdio::null()).status().with_context(|| cannot_run(&call))?;
        if !status.success() {
            bail!("`{call}` failed ({status})");
        }
        Ok(())
    }

    /// Runs it and keeps what it says. Any exit is an answer.
    pub(crate) fn hear(mut self) -> Result<Heard> {
        let call = self.to_string();
        let stdin = if self.input.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| cannot_run(&call))?;
        if let (Some(text), Some(mut stdin)) = (self.input, child.stdin.take()) {
            // A program that does not read to the end is judged by its exit.
            let _closed_early = stdin.write_all(text.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| cannot_run(&call))?;
        Ok(Heard {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            call,
        })
    }

    /// Runs it and returns its stdout. An exit other than 0 is an error with its last lines.
    pub(crate) fn read(self) -> Result<String> {
        self.hear()?.success()
    }

    /// Whether it can be run and ends well; for "is it installed?".
    pub(crate) fn works(self) -> bool {
        self.hear().is_ok_and(|heard| heard.status.success())
    }
}

impl std::fmt::Display for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = Path::new(self.command.get_program());
        f.write_str(&program.file_name().unwrap_or(program.as_os_str()).to_string_lossy())?;
        for argument in self.command.get_args() {
            let argument = argument.to_string_lossy();
            if argument.is_empty() || argument.contains([' ', '\n', '\'', '"']) {
                write!(f, " {argument:?}")?;
            } else {
                write!(f, " {argument}")?;
            }
        }
        Ok(())
    }
}

impl Heard {
    /// Its stdout, if it ended well.
    pub(crate) fn success(self) -> Result<String> {
        if self.status.success() { Ok(self.stdout) } else { bail!("{}", self.failure()) }
    }

    /// How it failed, in one line and its last ones.
    pub(crate) fn failure(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        let Self { call, status, .. } = self;
        format!("`{call}` failed ({status}){}", last_lines(said))
    }
}

fn cannot_run(call: &str) -> String {
    format!("cannot run `{call}`")
}

/// The end of a text, indented, each line on one of its own.
pub(crate) fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    last.iter().map(|line| format!("\n    {line}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_quotes_the_program_its_status_and_its_last_words() {
        let error = Call::of("/bin/sh").args(["-c", "echo out; echo one >&2; echo two >&2; exit 3"]).read();
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("`sh -c \"echo out;"), "{text}");
        assert!(text.ends_with("failed (exit status: 3)\n    one\n    two"), "{text}");
    }

    #[test]
    fn a_program_reads_its_input_and_is_heard() {
        assert_eq!(Call::of("cat").input("text").read().unwrap(), "text");
        assert!(!Call::of("false").works());
        assert!(!Call::of("/nonexistent/program").works());
    }

    #[test]
    fn only_the_end_of_a_long_text_is_quoted() {
        let text: String = (0..100).map(|n| format!("{n}\n")).collect();
        let quoted = last_lines(&text);
        assert!(quoted.starts_with("\n    80\n") && quoted.ends_with("\n    99"), "{quoted}");
    }
}
