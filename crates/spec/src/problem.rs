//! What is wrong with a file, and where.

use std::fmt;

use crate::{Loaded, Project, Source};

/// A file with more errors than this is broken in one way many times over; the rest is counted.
const MAX_SHOWN: usize = 100;

/// A piece of a source. Ordered by place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    /// Which of the sources.
    pub(crate) file: usize,
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// In bytes of the source's text.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    /// The beginning of a source: where what is missing from it is reported.
    pub(crate) fn beginning(file: usize) -> Self {
        Self { file, line: 1, column: 1, start: 0, end: 0 }
    }

    /// Says where this is in a message about `other`.
    pub(crate) fn seen_from(&self, other: Self) -> String {
        if self.file == other.file { format!("on line {}", self.line) } else { "in another file".to_owned() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    Error,
    Warning,
}

/// One thing that is wrong, or that the author should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(crate) severity: Severity,
    pub(crate) span: Span,
    pub(crate) file: String,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Problem {
    /// The name of the source that it is in.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Counts from 1.
    pub fn line(&self) -> usize {
        self.span.line
    }

    /// Counts from 1, in characters.
    pub fn column(&self) -> usize {
        self.span.column
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Whether the file can be deployed all the same.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }
}

/// `file:line:column: message; hint`, in one line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.span.line, self.span.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Why files cannot be deployed: at least one error, sorted by place. Displays as one line a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    errors: Vec<Problem>,
    omitted: usize,
    warnings: Vec<Problem>,
}

impl Problems {
    /// The errors, never none of them. The first hundred that were found, if there are more.
    pub fn as_slice(&self) -> &[Problem] {
        &self.errors
    }

    /// How many errors there are beyond [`Problems::as_slice`].
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// What was found beside the errors, and may explain them: a variable that is not set, say.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        match self.omitted {
            0 => Ok(()),
            1 => f.write_str("\nand one more problem"),
            more => write!(f, "\nand {more} more problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// Collects what the steps of loading find.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    sources: &'a [Source],
    errors: Vec<Problem>,
    omitted: usize,
    warnings: Vec<Problem>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(sources: &'a [Source]) -> Self {
        Self { sources, errors: Vec::new(), omitted: 0, warnings: Vec::new() }
    }

    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.add(Severity::Error, span, message.into(), None);
    }

    pub(crate) fn error_with(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Error, span, message.into(), Some(hint.into()));
    }

    pub(crate) fn warning(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, span, message.into(), Some(hint.into()));
    }

    /// Whether another error would only be counted, so that nobody needs to work on its wording.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_SHOWN
    }

    fn add(&mut self, severity: Severity, span: Span, message: String, hint: Option<String>) {
        let file =
            self.sources.get(span.file).map_or_else(|| "<none>".to_owned(), |source| source.name.clone());
        let problem = Problem { severity, span, file, message, hint };
        let list = match severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        // What stands behind an anchor is met again at each of its aliases, and the first error of a value
        // explains those that it leads to.
        let known =
            |known: &Problem| known.span == span && (severity == Severity::Error || *known == problem);
        if list.iter().any(known) {
            return;
        }
        if list.len() < MAX_SHOWN {
            list.push(problem);
        } else if severity == Severity::Error {
            self.omitted += 1;
        }
    }

    /// The project if there was no error.
    pub(crate) fn finish(self, project: Project) -> Result<Loaded, Problems> {
        if self.errors.is_empty() {
            let mut warnings = self.warnings;
            sort(&mut warnings);
            return Ok(Loaded { project, warnings });
        }
        Err(self.into_problems())
    }

    /// The errors, of which there has to be one.
    pub(crate) fn into_problems(mut self) -> Problems {
        debug_assert!(!self.errors.is_empty(), "loading fails for a reason");
        sort(&mut self.errors);
        sort(&mut self.warnings);
        Problems { errors: self.errors, omitted: self.omitted, warnings: self.warnings }
    }
}

fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| a.span.cmp(&b.span).then_with(|| a.message.cmp(&b.message)));
}

/// Text of the user's for use in a message: short, and without what would act on a terminal.
pub(crate) fn shown(text: &str) -> String {
    excerpt(text, 60)
}

/// The first `most` characters of a text, as [`shown`].
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut short: String = text.chars().take(most).flat_map(escaped).collect();
    if text.chars().nth(most).is_some() {
        short.push('…');
    }
    short
}

fn escaped(c: char) -> impl Iterator<Item = char> {
    // Beside control characters, those that are invisible or turn the direction of what follows.
    let deceives =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let (plain, escape) =
        if c.is_control() || deceives { (None, Some(c.escape_debug())) } else { (Some(c), None) };
    plain.into_iter().chain(escape.into_iter().flatten())
}
