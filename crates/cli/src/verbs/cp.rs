//! `gantry cp`.
//!
//! What is copied is a tar archive on its way. Where it goes is decided on the side that has the destination: in a container
//! by its node, here by [`unpack::Target`].

mod pack;
mod place;
mod stream;
mod unpack;

use std::io;
use std::path::{Path, PathBuf};

use model::Bytes;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use wire::proto::stream::{self as proto, Begun, begin, piece};

use crate::Exit;
use crate::failure::Failure;
use crate::input::{self, InputError};
use crate::progress::CopyDisplay;
use crate::render::plain;
use crate::session::Session;
use crate::talk::{Ear, Mouth, Subject, Talk, Times, open};
use crate::verbs::cp::pack::Source;
use crate::verbs::cp::place::Place;
use crate::verbs::cp::stream::{Fed, Pieces, WAITING};
use crate::verbs::cp::unpack::Target;
use crate::verbs::exec::has_begun;

/// What is read of an archive on stdin at once.
const READ: usize = 32 << 10;

/// So many of what was skipped are named.
const NAMED: usize = 10;

/// Copy files between a container and this machine
///
/// As `docker cp`. The container has to run. A directory is copied with all in it: into DEST if that is a directory, and
/// otherwise as DEST, which is made; the content alone if SRC ends in `/.`. A file is copied into DEST if that is a directory,
/// and otherwise as DEST, or over it. The directory in which DEST is has to be there; DEST with a `/` at its end has to be or
/// become a directory.
///
/// REF:PATH is split at the first `:`. A path of this machine that has one begins with `/` or `./`. What comes into a
/// container belongs to root, what comes here to you, without set-user-id and set-group-id; -a keeps both where it can.
/// Sockets are skipped, and pipes and devices on this machine. Extended attributes are not copied.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry cp nginx.conf hello/web.1:/etc/nginx/nginx.conf
  gantry cp hello/web:/var/log ./logs
  gantry cp ./site/. hello/web:/srv/site
  gantry cp hello/db:/data - | gzip > data.tar.gz
  zcat data.tar.gz | gantry cp - hello/db:/")]
pub struct Cp {
    /// Copy what a link at the end of SRC leads to, and not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Keep owners, and the modes that go with them
    #[arg(short, long)]
    archive: bool,
    /// REF:PATH, a path, or `-` for a tar archive on stdin
    #[arg(value_name = "SRC")]
    source: Place,
    /// REF:PATH, a path, or `-` for a tar archive on stdout
    #[arg(value_name = "DEST")]
    destination: Place,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    #[error("one of SRC and DEST has to be in a container")]
    NoContainer,
    #[error("SRC and DEST are both in containers")]
    TwoContainers,
    #[error("stdout is a terminal, which can do nothing with a tar archive")]
    Terminal,
    #[error("<stdin> is compressed ({0}), and a tar archive is expected")]
    Compressed(&'static str),
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is a socket, a pipe or a device, which is not copied", .0.display())]
    Special(PathBuf),
    #[error("cannot send {}", .path.display())]
    Send {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    #[error("{} is a file, over which no directory can be copied", .0.display())]
    DirectoryOverFile(PathBuf),
    #[error("{} is a directory, over which no file can be copied", .0.display())]
    FileOverDirectory(PathBuf),
    #[error("{} is a link or a file, through which nothing is copied", .0.display())]
    InTheWay(PathBuf),
    /// To put a file in the place of /dev/null would be no copy but the end of many programs.
    #[error("{} is a socket, a pipe or a device, over which nothing is copied", .0.display())]
    OverSpecial(PathBuf),
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("what the node sends names {}, which is outside of what was asked for", .0.display())]
    Outside(PathBuf),
    #[error("what the node sends cannot be read")]
    Archive(#[source] io::Error),
    #[error("the copy stopped: {0}")]
    Stopped(String),
}

impl CopyError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::NoContainer | Self::TwoContainers | Self::Terminal => Exit::Usage,
            Self::Compressed(_)
            | Self::Read { .. }
            | Self::Special(_)
            | Self::Send { .. }
            | Self::NotADirectory(_)
            | Self::DirectoryOverFile(_)
            | Self::FileOverDirectory(_)
            | Self::InTheWay(_)
            | Self::OverSpecial(_)
            | Self::Write { .. }
            | Self::Outside(_)
            | Self::Archive(_)
            | Self::Stopped(_) => Exit::Failed,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoContainer => Some("write it as REF:PATH, for example hello/web:/etc/hosts"),
            Self::TwoContainers => {
                Some("copy to this machine first, or pipe: `gantry cp A:PATH - | gantry cp - B:DIR`")
            }
            Self::Terminal => Some("redirect it into a file or another command"),
            Self::Compressed(_) => Some("decompress it on the way: `zcat FILE | gantry cp - REF:DIR`"),
            Self::NotADirectory(_) => Some("make the directory first"),
            Self::InTheWay(_) => Some("copy to what it leads to"),
            Self::Read { .. }
            | Self::Special(_)
            | Self::Send { .. }
            | Self::DirectoryOverFile(_)
            | Self::FileOverDirectory(_)
            | Self::OverSpecial(_)
            | Self::Write { .. }
            | Self::Outside(_)
            | Self::Archive(_)
            | Self::Stopped(_) => None,
        }
    }

    /// Whether it only says that the other side has stopped listening. Why it has, the other side says.
    fn is_hung_up(&self) -> bool {
        matches!(self, Self::Send { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// What came of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Copied {
    files: u64,
    /// Of the files, without what is around them on the way.
    bytes: u64,
    /// What was left out, and why; of much, the first.
    skipped: Vec<(PathBuf, &'static str)>,
    /// How much more was. A container can have a million pipes with long names.
    skipped_more: u64,
}

impl Copied {
    fn skip(&mut self, path: &Path, why: &'static str) {
        if self.skipped.len() < NAMED {
            self.skipped.push((path.to_owned(), why));
        } else {
            self.skipped_more += 1;
        }
    }
}

impl Cp {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { follow_link, archive, source, destination } = self;
        match (source, destination) {
            (Place::Container { reference, path }, Place::Local(destination)) => {
                let asked = proto::CopyOut { path, follow: follow_link };
                out(session, &reference, asked, &destination, archive).await
            }
            (Place::Container { reference, path }, Place::Stream) => {
                let asked = proto::CopyOut { path, follow: follow_link };
                to_stdout(session, &reference, asked).await
            }
            (Place::Local(source), Place::Container { reference, path }) => {
                let source = Source::find(&source, follow_link)?;
                let asked = proto::CopyIn { path, keep_owner: archive, rename: true };
                into(session, source, &reference, asked).await
            }
            (Place::Stream, Place::Container { reference, path }) => {
                let asked = proto::CopyIn { path, keep_owner: archive, rename: false };
                from_stdin(session, &reference, asked).await
            }
            (Place::Container { .. }, Place::Container { .. }) => Err(CopyError::TwoContainers.into()),
            (Place::Local(_) | Place::Stream, Place::Local(_) | Place::Stream) => {
                Err(CopyError::NoContainer.into())
            }
        }
    }
}

/// Asks for a file or directory; what there is, when it comes.
async fn ask(session: &Session, reference: &str, asked: proto::CopyOut) -> Result<(Talk, Begun), Failure> {
    let mut cluster = session.cluster()?;
    let what = begin::What::CopyOut(asked);
    let mut talk = open(&mut cluster, Subject::Task(reference), what, Times::Any).await?;
    let begun = has_begun(&mut talk).await?;
    Ok((talk, begun))
}

async fn out(
    session: &Session,
    reference: &str,
    asked: proto::CopyOut,
    destination: &Path,
    keep_owner: bool,
) -> Result<(), Failure> {
    let content_only = place::is_content_only(&asked.path);
    let from = format!("{reference}:{}", asked.path);
    let (Talk { mouth: _kept, mut ear }, begun) = ask(session, reference, asked).await?;
    let target = Target::choose(destination, &begun, content_only)?;
    session.if_interrupted(format!("what has come so far is in {}", destination.display()));
    let display = CopyDisplay::of(session.output, (begun.size > 0).then_some(begun.size));
    let (pieces, archive) = mpsc::channel(WAITING);
    let unpacking =
        spawn_blocking(move || unpack::unpack(target, &begun.name, keep_owner, Fed::new(archive)));
    let receiving = receive(&mut ear, pieces, display);
    let (unpacked, received) = tokio::join!(unpacking, receiving);
    // Where the other side broke off, what was read of it is cut as well.
    received?;
    let copied = ended(unpacked)?;
    report(session, &copied, &from, &destination.display().to_string());
    Ok(())
}

/// Hands on what the node sends, until it has sent all.
async fn receive(
    ear: &mut Ear,
    pieces: mpsc::Sender<Option<Vec<u8>>>,
    mut display: CopyDisplay,
) -> Result<(), Failure> {
    while let Some(kind) = ear.hear().await? {
        match kind {
            piece::Kind::Data(data) => {
                display.add(data.len() as u64);
                if pieces.send(Some(data)).await.is_err() {
                    // Unpacking has failed, and says why itself.
                    return Ok(());
                }
            }
            piece::Kind::End(_) => {
                let _failed = pieces.send(None).await;
                return Ok(());
            }
            _other => {}
        }
    }
    Err(ear.unfinished().into())
}

async fn to_stdout(session: &Session, reference: &str, asked: proto::CopyOut) -> Result<(), Failure> {
    if session.output.stdout_is_terminal {
        return Err(CopyError::Terminal.into());
    }
    let (Talk { mouth: _kept, mut ear }, begun) = ask(session, reference, asked).await?;
    let mut display = CopyDisplay::of(session.output, (begun.size > 0).then_some(begun.size));
    while let Some(kind) = ear.hear().await? {
        match kind {
            piece::Kind::Data(data) => {
                display.add(data.len() as u64);
                session.output.on_thread(move |output| output.data(data)).await?;
            }
            piece::Kind::End(_) => return Ok(()),
            _other => {}
        }
    }
    Err(ear.unfinished().into())
}

async fn into(
    session: &Session,
    source: Source,
    reference: &str,
    asked: proto::CopyIn,
) -> Result<(), Failure> {
    let (from, to) = (source.path.display().to_string(), format!("{reference}:{}", asked.path));
    let mut cluster = session.cluster()?;
    let what = begin::What::CopyIn(asked);
    let Talk { mouth, mut ear } = open(&mut cluster, Subject::Task(reference), what, Times::Any).await?;
    session.if_interrupted(format!("what was sent so far is in {to}"));
    let pieces = Pieces::new(mouth.clone(), CopyDisplay::of(session.output, source.size));
    let packing = spawn_blocking(move || pack::pack(&source, pieces));
    let copied = send(packing, &mouth, &mut ear).await?;
    report(session, &copied, &from, &to);
    Ok(())
}

/// Waits until all is sent and the node has it. What it says meanwhile is why it stopped.
async fn send(
    mut packing: JoinHandle<Result<Copied, CopyError>>,
    mouth: &Mouth,
    ear: &mut Ear,
) -> Result<Copied, Failure> {
    let mut done = std::pin::pin!(ear.done());
    let packed = tokio::select! {
        done = &mut done => {
            done?;
            // It does not say so before it has read all, so this is over as well.
            return Ok(ended(packing.await)?);
        }
        packed = &mut packing => ended(packed),
    };
    match packed {
        Ok(copied) => {
            let _hung_up = mouth.say(piece::Kind::End(true)).await;
            done.await?;
            Ok(copied)
        }
        Err(error) if error.is_hung_up() => {
            done.await?;
            Err(error.into())
        }
        // Whoever hears no end and then nothing more takes nothing for whole.
        Err(error) => Err(error.into()),
    }
}

fn ended(thread: Result<Result<Copied, CopyError>, JoinError>) -> Result<Copied, CopyError> {
    thread.unwrap_or_else(|error| Err(CopyError::Stopped(error.to_string())))
}

async fn from_stdin(session: &Session, reference: &str, asked: proto::CopyIn) -> Result<(), Failure> {
    let stdin = PathBuf::from("-");
    let (mut file, size) = input::open(&stdin)?;
    let mut bytes = vec![0; READ];
    let mut count = file.read(&mut bytes).await.map_err(|source| unread(&stdin, source))?;
    if let Some(format) = compression(&bytes[..count]) {
        return Err(CopyError::Compressed(format).into());
    }
    let mut cluster = session.cluster()?;
    let what = begin::What::CopyIn(asked);
    let Talk { mouth, mut ear } = open(&mut cluster, Subject::Task(reference), what, Times::Any).await?;
    session.if_interrupted(format!("what was sent so far is in {reference}"));
    let mut display = CopyDisplay::of(session.output, size);
    let sending = async {
        while count > 0 {
            display.add(count as u64);
            if mouth.say(piece::Kind::Data(bytes[..count].to_vec())).await.is_err() {
                return Ok(());
            }
            count = file.read(&mut bytes).await.map_err(|source| unread(&stdin, source))?;
        }
        let _hung_up = mouth.say(piece::Kind::End(true)).await;
        Ok::<(), InputError>(())
    };
    tokio::select! {
        done = ear.done() => Ok(done?),
        Err(error) = sending => Err(error.into()),
    }
}

fn unread(path: &Path, source: io::Error) -> InputError {
    InputError::Read { path: path.to_owned(), source }
}

/// What compressed an archive, by its first bytes.
fn compression(bytes: &[u8]) -> Option<&'static str> {
    let formats: [(&[u8], &str); 4] = [
        (&[0x1f, 0x8b], "gzip"),
        (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
        (&[0xfd, b'7', b'z', b'X', b'Z'], "xz"),
        (b"BZh", "bzip2"),
    ];
    formats.into_iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| name)
}

fn report(session: &Session, copied: &Copied, from: &str, to: &str) {
    for line in notes(copied) {
        session.output.say(&line);
    }
    let files = if copied.files == 1 { "1 file".to_owned() } else { format!("{} files", copied.files) };
    session.output.say(&plain(&format!("copied {from} to {to}: {files}, {}", Bytes(copied.bytes))));
}

fn notes(copied: &Copied) -> Vec<String> {
    let note = |(path, why): &(PathBuf, &'static str)| {
        format!("note: {} is left out: {why}", plain(&path.display().to_string()))
    };
    let mut notes: Vec<String> = copied.skipped.iter().map(note).collect();
    if copied.skipped_more > 0 {
        notes.push(format!("note: {} more are left out", copied.skipped_more));
    }
    notes
}

#[cfg(test)]
mod tests;
