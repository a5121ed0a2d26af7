//! The user's terminal: its size, and its mode while a command has it.

use std::io;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};
use wire::proto::stream::Size;

/// What a terminal has that does not say, as most have had since 1978.
const USUAL: Size = Size { rows: 24, columns: 80 };

/// The terminal at stdin in another mode. Dropping this gives it back as it was, which is on every way out: a result, a
/// panic, and a signal, at which whatever runs is dropped.
pub(crate) struct Held {
    before: Termios,
}

impl Held {
    /// Every key goes on as it is, Ctrl-C with the rest: the terminal in the container makes of it what it makes of it.
    pub(crate) fn raw() -> io::Result<Self> {
        Self::with(Termios::make_raw)
    }

    /// Each key is read as it is pressed, and not shown. Ctrl-C stays what it is.
    pub(crate) fn keys() -> io::Result<Self> {
        Self::with(|modes| {
            modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            modes.special_codes[SpecialCodeIndex::VMIN] = 1;
            modes.special_codes[SpecialCodeIndex::VTIME] = 0;
        })
    }

    /// What is typed is read line by line, and not shown. Ctrl-C stays what it is.
    pub(crate) fn unseen() -> io::Result<Self> {
        Self::with(|modes| modes.local_modes.remove(LocalModes::ECHO))
    }

    fn with(change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut changed = before.clone();
        change(&mut changed);
        // Made before the change, so that half of a change is taken back as well.
        let held = Self { before };
        tcsetattr(io::stdin(), OptionalActions::Now, &changed)?;
        Ok(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back. Nor is it waited for one that shows nothing any more, whose connection
        // hangs say: this is on the way out of a signal as well.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// The size of the terminal that stdout is, or stdin; `None` if neither is one or knows.
pub(crate) fn size() -> Option<Size> {
    let size = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin())).ok()?;
    let size = Size { rows: size.ws_row.into(), columns: size.ws_col.into() };
    (size.rows > 0 && size.columns > 0).then_some(size)
}

/// The same, or what most terminals have.
pub(crate) fn size_or_usual() -> Size {
    size().unwrap_or(USUAL)
}
