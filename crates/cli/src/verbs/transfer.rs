//! `gantry image pull`, `push`, `tag`, `inspect` and `save`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use model::{ImageName, Name};
use serde_json::Value;
use tonic::{Response, Status, Streaming};
use wire::proto::api::{
    Image, InspectRequest, PullImageRequest, PushImageRequest, SaveImageRequest, TagImageRequest,
    TransferProgress,
};

use crate::Exit;
use crate::cluster::{CallError, Client, Cluster, Effect, Operation, PATIENCE, is_passing, request};
use crate::failure::Failure;
use crate::progress::TransferDisplay;
use crate::render::{self, Format};
use crate::session::Session;

/// Bring an image from its registry to a node
///
/// The registry is asked what the name stands for now, and the cluster keeps that under this name. Services that use the name
/// keep what they were deployed with.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image pull nginx:1.22
  gantry image pull registry.example:5000/team/app --node n2")]
pub struct Pull {
    /// The image's name, with its registry unless that is Docker Hub
    name: ImageName,
    /// The node that is to have it; any, if this is left out
    #[arg(long, value_name = "NODE")]
    node: Option<Name>,
}

/// Send an image to a registry
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image push registry.example:5000/team/app:v1
  gantry image push app:v1 --as registry.example:5000/team/app:v1")]
pub struct Push {
    /// What the cluster calls it
    name: ImageName,
    /// What the registry is to call it; the same, if this is left out
    #[arg(long = "as", value_name = "NAME")]
    target: Option<ImageName>,
}

/// Give an image another name
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image tag app:v1 registry.example:5000/team/app:v1")]
pub struct Tag {
    /// What it is called
    name: ImageName,
    /// What it is to be called as well; taken from another image if need be
    target: ImageName,
}

/// Show all that is known of an image: its layers, its configuration, who holds it, who uses it
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image inspect nginx:1.22
  gantry image inspect nginx:1.22 -o yaml")]
pub struct Inspect {
    /// The image's name or digest
    #[arg(value_name = "NAME")]
    reference: String,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t = Format::Json)]
    output: Format,
}

/// Write an image to a file
///
/// The archive is an OCI image layout, which `gantry image import`, `docker load` and skopeo's `oci-archive:` read.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image save nginx:1.22 -o nginx.tar
  gantry image save nginx:1.22 -o - | zstd > nginx.tar.zst")]
pub struct Save {
    /// The image's name
    name: ImageName,
    /// Where to, or `-` for stdout
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SaveError {
    #[error("an archive is not for a terminal, and stdout is one")]
    Terminal,
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl SaveError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Terminal => Exit::Usage,
            Self::Write { .. } => Exit::Failed,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Terminal => Some("name a file with -o, or write to a pipe"),
            Self::Write { .. } => None,
        }
    }
}

impl Pull {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let name = self.name.to_string();
        let operation = Operation { operand: &name, effect: Effect::Reads, list: "gantry image ls" };
        session.if_interrupted("the pull is given up; repeating it is safe");
        let node = self.node.map(|node| node.to_string()).unwrap_or_default();
        let pull = PullImageRequest { name: name.clone(), node };
        let mut cluster = session.cluster()?;
        let image = transfer(session, &mut cluster, operation, |mut client| {
            let pull = pull.clone();
            async move { client.pull_image(pull).await }
        });
        session.output.data(render::images::pulled(&image.await?))?;
        Ok(())
    }
}

impl Push {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let name = self.name.to_string();
        let operation = Operation { operand: &name, effect: Effect::Reads, list: "gantry image ls" };
        session.if_interrupted("the push is given up; repeating it is safe");
        let target = self.target.as_ref().unwrap_or(&self.name).to_string();
        let push = PushImageRequest { name: name.clone(), target: target.clone() };
        let mut cluster = session.cluster()?;
        let pushed = transfer(session, &mut cluster, operation, |mut client| {
            let push = push.clone();
            async move { client.push_image(push).await }
        });
        let digest = render::images::short(&pushed.await?.digest);
        session.output.data(format!("pushed {} (sha256:{digest})\n", render::plain(&target)))?;
        Ok(())
    }
}

/// Opens a stream of progress and shows it to its end; what the image is then.
async fn transfer<F, Fut>(
    session: &Session,
    cluster: &mut Cluster,
    operation: Operation<'_>,
    open: F,
) -> Result<Image, CallError>
where
    F: Fn(Client) -> Fut,
    Fut: Future<Output = Result<Response<Streaming<TransferProgress>>, Status>>,
{
    let mut answers = cluster.call_patiently(operation, PATIENCE, open).await?;
    let mut display = TransferDisplay::of(session.output);
    while let Some(progress) = next(&mut answers, operation).await? {
        match progress.image {
            Some(image) => return Ok(image),
            None => display.show(&progress),
        }
    }
    Err(operation.broken("the manager said no last word"))
}

async fn next<T>(answers: &mut Streaming<T>, operation: Operation<'_>) -> Result<Option<T>, CallError> {
    answers.message().await.map_err(|status| match is_passing(&status) {
        true => operation.broken(status.message()),
        false => operation.refused(&status),
    })
}

impl Tag {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let (name, target) = (self.name.to_string(), self.target.to_string());
        let operation = Operation { operand: &name, effect: Effect::Changes, list: "gantry image ls" };
        let tag = TagImageRequest { request: request(), name: name.clone(), target: target.clone() };
        let mut cluster = session.cluster()?;
        session.if_interrupted("the name may have been given; `gantry image ls` shows it");
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let tag = tag.clone();
            async move { client.tag_image(tag).await }
        });
        sent.await?;
        session.output.data(format!("{name} is {target} as well\n"))?;
        Ok(())
    }
}

impl Inspect {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { reference, output } = self;
        let operation = Operation { operand: &reference, effect: Effect::Reads, list: "gantry image ls" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call_patiently(operation, PATIENCE, |mut client| {
            let inspect = InspectRequest { reference: reference.clone() };
            async move { client.inspect_image(inspect).await }
        });
        let json = reply.await?.json;
        let document: Value = serde_json::from_str(&json)
            .map_err(|source| Failure::Answer { reference: reference.clone(), source })?;
        let document = render::document::with_times(document);
        let table = |_| render::fields::fields_table(&document);
        session.output.data(render::list(output, &document, table))?;
        Ok(())
    }
}

impl Save {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let name = self.name.to_string();
        let operation = Operation { operand: &name, effect: Effect::Reads, list: "gantry image ls" };
        let to_stdout = self.output.as_os_str() == "-";
        if to_stdout && session.output.stdout_is_terminal {
            return Err(SaveError::Terminal.into());
        }
        session.if_interrupted("nothing was written");
        let mut cluster = session.cluster()?;
        let answers = cluster.call_patiently(operation, PATIENCE, |mut client| {
            let save = SaveImageRequest { name: name.clone() };
            async move { client.save_image(save).await }
        });
        let mut answers = answers.await?;
        if to_stdout {
            while let Some(piece) = next(&mut answers, operation).await? {
                session.output.on_thread(move |output| output.data(piece.data)).await?;
            }
            return Ok(());
        }
        let mut target = Target::open(&self.output)?;
        while let Some(piece) = next(&mut answers, operation).await? {
            target.write(&piece.data)?;
        }
        target.finish()?;
        session.output.say(&format!("{name}: saved to {}", self.output.display()));
        Ok(())
    }
}

/// The file that an archive goes to. It has its name only when it is whole: half an archive looks like one.
#[derive(Debug)]
struct Target {
    file: File,
    path: PathBuf,
    /// `None` where what is there is no file to be replaced, as with /dev/null or a named pipe.
    unfinished: Option<Unfinished>,
}

/// A file that is removed when this is dropped.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Once it was renamed, it is not there.
        let _ = fs::remove_file(&self.0);
    }
}

impl Target {
    fn open(path: &Path) -> Result<Self, SaveError> {
        let is_special = fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let unfinished = (!is_special).then(|| {
            let mut name = OsString::from(path);
            name.push(".part");
            Unfinished(PathBuf::from(name))
        });
        let opened = unfinished.as_ref().map_or(path, |unfinished| unfinished.0.as_path());
        let failed = |source| SaveError::Write { path: opened.to_owned(), source };
        let file = match unfinished {
            Some(_) => File::create(opened),
            None => File::options().write(true).open(opened),
        };
        Ok(Self { file: file.map_err(failed)?, path: path.to_owned(), unfinished })
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), SaveError> {
        self.file.write_all(piece).map_err(|source| SaveError::Write { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(), SaveError> {
        let Self { file, path, unfinished } = self;
        let Some(unfinished) = unfinished else { return Ok(()) };
        let done = file.sync_all().and_then(|()| fs::rename(&unfinished.0, &path));
        done.map_err(|source| SaveError::Write { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_name_when_it_is_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.tar");
        let content = || fs::read_dir(directory.path()).unwrap().count();
        let mut target = Target::open(&path).unwrap();
        target.write(b"half").unwrap();
        assert!(!path.exists());
        drop(target);
        assert_eq!(content(), 0, "what was begun is gone");
        let mut target = Target::open(&path).unwrap();
        target.write(b"all").unwrap();
        target.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), content()), (b"all".to_vec(), 1));
    }

    #[test]
    fn what_is_no_file_is_written_to_as_it_is() {
        let mut target = Target::open(Path::new("/dev/null")).unwrap();
        target.write(b"x").unwrap();
        target.finish().unwrap();
        let nowhere = Target::open(Path::new("/nowhere/image.tar")).unwrap_err().to_string();
        assert_eq!(nowhere, "cannot write /nowhere/image.tar.part");
    }
}
