//! Signals, pause and resume.

use std::path::PathBuf;

use runtime::handle;
use wire::proto::stream::failure::Kind;
use wire::proto::stream::{Act, act, piece};

use crate::real::talk::{Mouth, Refusal};
use crate::real::tasks::Cut;
use crate::real::{blocking, failure};

pub(super) async fn answer(dir: PathBuf, Act { what }: Act, mouth: &Mouth) -> Result<(), Cut> {
    let what = what.ok_or_else(|| Refusal::new(Kind::Failed, "nothing was asked of the container"))?;
    blocking(move || match what {
        act::What::Signal(number) => {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            handle::signal(&dir, number).map_err(|error| failure("the signal was not sent", &error))
        }
        act::What::Pause(_) => {
            handle::pause(&dir).map_err(|error| failure("the container was not paused", &error))
        }
        act::What::Resume(_) => {
            handle::resume(&dir).map_err(|error| failure("the container was not resumed", &error))
        }
    })
    .await?;
    Ok(mouth.say(piece::Kind::End(true)).await?)
}
