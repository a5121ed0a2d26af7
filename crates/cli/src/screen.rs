//! Text that is drawn over what was drawn before.

use std::io;

use wire::proto::stream::Size;

use crate::output::Output;
use crate::terminal;

/// The part of stdout's terminal that is drawn on: all of it.
#[derive(Debug)]
pub(crate) struct Screen {
    output: Output,
    is_drawn: bool,
}

impl Screen {
    pub(crate) fn of(output: Output) -> Self {
        Self { output, is_drawn: false }
    }

    /// Draws lines that have nothing in them that acts on a terminal. What does not fit is left out.
    pub(crate) async fn draw(&mut self, text: &str) -> io::Result<()> {
        let frame = frame(text, terminal::size_or_usual(), self.is_drawn);
        self.is_drawn = true;
        self.output.on_thread(move |output| output.data(frame)).await
    }
}

/// The first time, what was on the screen goes; later, each line takes the place of the one before, which does not flicker.
fn frame(text: &str, size: Size, is_drawn: bool) -> String {
    let rows = usize::try_from(size.rows).unwrap_or(usize::MAX).max(2);
    let columns = usize::try_from(size.columns).unwrap_or(usize::MAX);
    let mut frame = if is_drawn { "\u{1b}[H" } else { "\u{1b}[2J\u{1b}[H" }.to_owned();
    let lines: Vec<&str> = text.lines().collect();
    // The last row stays free, for the cursor.
    let fitting = if lines.len() < rows { lines.len() } else { rows - 2 };
    for line in &lines[..fitting] {
        frame.extend(line.chars().take(columns));
        frame.push_str("\u{1b}[K\n");
    }
    if fitting < lines.len() {
        let more: String = format!("({} more)", lines.len() - fitting).chars().take(columns).collect();
        frame.push_str(&format!("{more}\u{1b}[K\n"));
    }
    frame.push_str("\u{1b}[J");
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_and_leaves_nothing_of_the_one_before() {
        let size = |rows, columns| Size { rows, columns };
        let text = "NAME  CPU %\nweb   1\ndb    2\n";
        let all = "\u{1b}[HNAME  CPU %\u{1b}[K\nweb   1\u{1b}[K\ndb    2\u{1b}[K\n\u{1b}[J";
        assert_eq!(frame(text, size(24, 80), true), all);
        assert_eq!(frame(text, size(4, 80), true), all);
        let cut = "\u{1b}[2J\u{1b}[HNAME\u{1b}[K\n(2 m\u{1b}[K\n\u{1b}[J";
        assert_eq!(frame(text, size(3, 4), false), cut);
        assert_eq!(frame("", size(1, 1), true), "\u{1b}[H\u{1b}[J");
    }
}
