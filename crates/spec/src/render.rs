//! Problems for people: the line, and what is wrong with it underneath.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::Source;
use crate::problem::{Problem, Severity};

/// A longer line is no help on a terminal; its place is named instead.
const MAX_LINE: usize = 500;

/// Shows problems as rustc does, an empty line between them. `sources` are those that were loaded; a problem
/// of another source is shown without its line. `colour` asks for ANSI escapes.
pub fn render(problems: &[Problem], sources: &[Source], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let blocks: Vec<String> =
        problems.iter().map(|problem| renderer.render(&[group(problem, sources)])).collect();
    blocks.join("\n\n")
}

fn group<'a>(problem: &'a Problem, sources: &'a [Source]) -> Group<'a> {
    let level = match problem.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let group = Group::with_title(level.primary_title(problem.message()));
    let group = match annotated_line(problem, sources) {
        Some((line, marked)) => group.element(
            Snippet::source(line)
                .line_start(problem.line())
                .path(problem.file())
                .annotation(AnnotationKind::Primary.span(marked)),
        ),
        None => {
            group.element(Origin::path(problem.file()).line(problem.line()).char_column(problem.column()))
        }
    };
    match problem.hint() {
        Some(hint) => group.element(Level::HELP.message(hint)),
        None => group,
    }
}

/// The line that a problem begins on, and which bytes of it the problem is about.
fn annotated_line<'a>(problem: &Problem, sources: &'a [Source]) -> Option<(&'a str, Range<usize>)> {
    let source = sources.get(problem.span.file).filter(|source| source.name == problem.file)?;
    let (before, after) = (source.text.get(..problem.span.start)?, source.text.get(problem.span.start..)?);
    let start = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
    let end = problem.span.start + after.find(['\n', '\r']).unwrap_or(after.len());
    let line = source.text.get(start..end)?;
    let from = problem.span.start - start;
    let to = (problem.span.end.max(problem.span.start) - start).min(line.len());
    (line.len() <= MAX_LINE && line.is_char_boundary(to)).then_some((line, from..to))
}
