//! `gantry image`.

use model::ImageName;
use wire::proto::api::{ListRequest, RemoveImageRequest};

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::times;
use crate::verbs::import::Import;
use crate::verbs::transfer::{Inspect, Pull, Push, Save, Tag};

/// The images that the cluster keeps
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Image {
    Import(Import),
    Pull(Pull),
    Push(Push),
    Ls(Ls),
    Inspect(Inspect),
    Tag(Tag),
    Save(Save),
    Rm(Rm),
}

/// List the images, and the nodes that hold them
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image ls
  gantry image ls -o wide")]
pub struct Ls {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Remove an image that no service uses
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry image rm nginx:1.22")]
pub struct Rm {
    /// The image's name; without a tag it is `latest`
    name: ImageName,
}

impl Image {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Import(command) => command.run(session).await,
            Self::Pull(command) => command.run(session).await,
            Self::Push(command) => command.run(session).await,
            Self::Inspect(command) => command.run(session).await,
            Self::Tag(command) => command.run(session).await,
            Self::Save(command) => command.run(session).await,
            Self::Ls(command) => command.run(session).await,
            Self::Rm(command) => command.run(session).await,
        }
    }
}

impl Ls {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: "gantry image ls" };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.list_images(ListRequest::default()).await
        });
        let images = reply.await?.images;
        let table = |wide| render::images::images_table(&images, wide, times::now());
        session.output.data(render::list(self.output, &render::images::rows(&images), table))?;
        Ok(())
    }
}

impl Rm {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let name = self.name.to_string();
        let operation = Operation { operand: &name, effect: Effect::Changes, list: "gantry image ls" };
        let remove = RemoveImageRequest { request: request(), name: name.clone() };
        let mut cluster = session.cluster()?;
        session.if_interrupted("the image may have been removed; `gantry image ls` shows it");
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let remove = remove.clone();
            async move { client.remove_image(remove).await }
        });
        sent.await?;
        session.output.data(format!("removed {name}\n"))?;
        Ok(())
    }
}
