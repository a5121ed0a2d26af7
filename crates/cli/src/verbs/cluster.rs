//! `gantry cluster`.

use std::str::FromStr;

use model::Strategy;
use wire::proto::api::{PutSettingsRequest, Settings, SettingsRequest};
use wire::proto::model as nouns;

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;

/// What holds for the whole cluster
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Cluster {
    Settings(Show),
    Set(Set),
}

/// Show the settings
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry cluster settings
  gantry cluster settings -o json")]
pub struct Show {
    /// How to write them
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Change settings
///
/// placement=spread puts tasks where the fewest of their service are, and then on the emptiest node. placement=binpack fills one
/// node after the other. A service may say otherwise (`x-gantry: {placement: {strategy: …}}`). What runs stays where it is.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry cluster set placement=binpack")]
pub struct Set {
    #[arg(value_name = "NAME=VALUE", required = true)]
    settings: Vec<Setting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Placement(Strategy),
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some(("placement", value)) => Ok(Self::Placement(value.parse()?)),
            Some(_) | None => Err("write placement=spread or placement=binpack".to_owned()),
        }
    }
}

impl Cluster {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Settings(command) => command.run(session).await,
            Self::Set(command) => command.run(session).await,
        }
    }
}

const LIST: &str = "gantry cluster settings";

impl Show {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operation = Operation { operand: "", effect: Effect::Reads, list: LIST };
        let mut cluster = session.cluster()?;
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.get_settings(SettingsRequest {}).await
        });
        let Settings { placement } = reply.await?;
        let placement = match nouns::Strategy::try_from(placement) {
            Ok(nouns::Strategy::BinPack) => Strategy::BinPack,
            Ok(nouns::Strategy::Spread | nouns::Strategy::Unspecified) | Err(_) => Strategy::Spread,
        };
        let document = serde_json::json!({ "placement": placement.as_str() });
        let table = |_| render::fields::fields_table(&document);
        session.output.data(render::list(self.output, &document, table))?;
        Ok(())
    }
}

impl Set {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let mut put = PutSettingsRequest { request: request(), placement: 0 };
        for setting in self.settings {
            match setting {
                Setting::Placement(strategy) => put.placement = nouns::Strategy::from(strategy).into(),
            }
        }
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the change may have been made; `{LIST}` shows it"));
        let operation = Operation { operand: "", effect: Effect::Changes, list: LIST };
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let put = put.clone();
            async move { client.put_settings(put).await }
        });
        let words = if sent.await?.changed { "changed" } else { "so already" };
        session.output.data(format!("{words}\n"))?;
        Ok(())
    }
}
