//! What a container has changed, on its way into an image of this node's.

use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use image::{Change, Committed, Edits, LayerFailure};
use model::TaskId;
use runtime::handle::{self, Observed, Pause, RequestError};
use runtime::layer;
use tokio::sync::watch;
use tonic::Streaming;
use wire::proto::agent::{Chunk, ImportEvent, ImportedImage, OpenCommit, chunk};

use super::{Sink, named};
use crate::host::Failure;
use crate::real::disk::Disk;
use crate::real::{blocking, failure};

pub(super) async fn serve(
    disk: &Disk,
    images: &image::Store,
    open: OpenCommit,
    incoming: &mut Streaming<Chunk>,
    sink: &Sink,
) -> Result<(), Failure> {
    let OpenCommit { task, message, author, no_pause, changes } = open;
    let task = named(task)?;
    let given = |text: String| (!text.is_empty()).then_some(text);
    let changes = changes.iter().map(|change| Change::parse(change)).collect::<Result<_, _>>();
    let changes = changes.map_err(|error| Failure(error.to_string()))?;
    let edits = Edits { created: SystemTime::now(), author: given(author), message: given(message), changes };
    let (disk, images) = (disk.clone(), images.clone());
    let (progress, mut told) = watch::channel(0);
    let work = async move {
        let commit = blocking(move || commit(&disk, &images, task, !no_pause, &edits, progress));
        let tell = async {
            while told.changed().await.is_ok() {
                let read = *told.borrow_and_update();
                if sink.send(chunk::Kind::Import(ImportEvent { read, done: None })).await.is_err() {
                    return;
                }
            }
        };
        tokio::join!(commit, tell).0
    };
    let Committed { digest, size } = tokio::select! {
        committed = work => committed?,
        // The thread finds out with what it reads next, and leaves nothing.
        () = hung_up(incoming) => return Err(Failure("the client has hung up".to_owned())),
    };
    let done = ImportedImage { digest: digest.to_string(), size: size.0, names: Vec::new() };
    sink.send(chunk::Kind::Import(ImportEvent { read: size.0, done: Some(done) })).await
}

async fn hung_up(incoming: &mut Streaming<Chunk>) {
    while let Ok(Some(_)) = incoming.message().await {}
}

/// Makes an image of the task's latest attempt, over the one that it was started from.
fn commit(
    disk: &Disk,
    images: &image::Store,
    task: TaskId,
    pauses: bool,
    edits: &Edits,
    progress: watch::Sender<u64>,
) -> Result<Committed, Failure> {
    let nothing = || Failure(format!("nothing of task {task} is left on its node"));
    let base = disk.record(task)?.ok_or_else(nothing)?.assigned.image;
    let (_, dir) = disk.attempts(task).pop().ok_or_else(nothing)?;
    let pause = pause(&dir, task, pauses)?;
    let layer = |sink: &mut dyn Write| -> Result<(), LayerFailure> {
        let written = layer::write(&dir, Told { sink, written: 0, progress });
        // What is left to do concerns the disk, and no container waits for it.
        drop(pause);
        written.map_err(LayerFailure::from)
    };
    images.commit(&base, layer, edits).map_err(|error| failure("the container was not committed", &error))
}

/// Stops a container that runs, unless somebody has already; one that has ended does not change any more.
fn pause(dir: &Path, task: TaskId, pauses: bool) -> Result<Option<Pause>, Failure> {
    let inspect = || handle::inspect(dir).map_err(|error| failure("cannot inspect the container", &error));
    match inspect()? {
        Observed::Running(running) if pauses && !running.paused => match handle::pause_while(dir) {
            Ok(pause) => Ok(Some(pause)),
            // It has just ended.
            Err(RequestError::NoShim { .. }) if matches!(inspect()?, Observed::Exited(_)) => Ok(None),
            Err(error) => {
                Err(failure("the container cannot be paused meanwhile (`--no-pause` does without)", &error))
            }
        },
        Observed::Running(_) | Observed::Exited(_) => Ok(None),
        Observed::NotStarted | Observed::Starting | Observed::Vanished => Err(Failure(format!(
            "the container of task {task} is not running, and is not known to have ended"
        ))),
    }
}

/// Says how much of a layer has been written, and ends when nobody listens.
struct Told<'a> {
    sink: &'a mut dyn Write,
    written: u64,
    progress: watch::Sender<u64>,
}

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.progress.is_closed() {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has hung up"));
        }
        let count = self.sink.write(bytes)?;
        self.written += count as u64;
        self.progress.send_replace(self.written);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
