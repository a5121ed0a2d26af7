//! `gantry job …`.

use model::ServiceName;
use tokio::time::Instant;
use wire::proto::api::{ChangeReply, ConvergeRequest, JobRequest, ListRequest};

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::times;
use crate::verbs::{Wait, scope};

/// What shows which jobs there are.
const LIST: &str = "gantry job ls";

/// See, repeat and stop services that run to their end
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Job {
    Ls(Ls),
    History(History),
    Run(Run),
    Stop(Stop),
}

/// List jobs, each with its latest run
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry job ls
  gantry job ls hello -o json")]
pub struct Ls {
    /// A stack, or a job as STACK/SERVICE
    #[arg(value_name = "STACK", value_parser = scope)]
    filter: Option<String>,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// List the runs of a job that are kept
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry job history hello/backup
  gantry job history hello/backup -o json")]
pub struct History {
    /// A job, as STACK/SERVICE
    service: ServiceName,
    /// How to write it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Do a job again, and wait until it has succeeded
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry job run hello/backup
  gantry job run hello/backup --timeout 1h
  gantry job run hello/backup --detach")]
pub struct Run {
    /// A job, as STACK/SERVICE
    service: ServiceName,
    #[command(flatten)]
    wait: Wait,
}

/// End the run of a job that goes on
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry job stop hello/backup")]
pub struct Stop {
    /// A job, as STACK/SERVICE
    service: ServiceName,
}

impl Job {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Ls(command) => command.run(session).await,
            Self::History(command) => command.run(session).await,
            Self::Run(command) => command.run(session).await,
            Self::Stop(command) => command.run(session).await,
        }
    }
}

async fn jobs(session: &Session, filter: &str) -> Result<Vec<wire::proto::api::Job>, Failure> {
    let operation = Operation { operand: filter, effect: Effect::Reads, list: LIST };
    let mut cluster = session.cluster()?;
    let ask = ListRequest { filter: filter.to_owned(), all: false };
    let reply = cluster.call(operation, PATIENCE, |mut client| {
        let ask = ask.clone();
        async move { client.list_jobs(ask).await }
    });
    Ok(reply.await?.jobs)
}

impl Ls {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let jobs = jobs(session, &self.filter.unwrap_or_default()).await?;
        let table = |wide| render::jobs::table_of(&jobs, wide, times::now());
        session.output.data(render::list(self.output, &render::jobs::rows(&jobs), table))?;
        Ok(())
    }
}

impl History {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let jobs = jobs(session, &self.service.to_string()).await?;
        let runs = jobs.iter().flat_map(|job| job.runs.iter().map(move |run| (job, run)));
        let runs: Vec<_> = runs.collect();
        let table = |wide| render::jobs::history_table(&runs, wide, times::now());
        session.output.data(render::list(self.output, &render::jobs::history(&runs), table))?;
        Ok(())
    }
}

impl Run {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = Instant::now();
        let operand = self.service.to_string();
        let look = format!("gantry job history {operand}");
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!("the job may have been begun; `{look}` shows it"));
        let ask = JobRequest { request: request(), service: operand.clone() };
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: LIST };
        let sent = cluster.call(operation, self.wait.timeout, |mut client| {
            let ask = ask.clone();
            async move { client.run_job(ask).await }
        });
        let ChangeReply { generation, .. } = sent.await?;
        let goal = ConvergeRequest { targets: vec![operand.clone()], gone: false, generation };
        settle(session, &mut cluster, Accepted { operand, look, goal }, self.wait, begun).await
    }
}

impl Stop {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let operand = self.service.to_string();
        let mut cluster = session.cluster()?;
        session.if_interrupted(format!(
            "the job may have been stopped; `gantry job history {operand}` shows it"
        ));
        let ask = JobRequest { request: request(), service: operand.clone() };
        let operation = Operation { operand: &operand, effect: Effect::Changes, list: LIST };
        let sent = cluster.call(operation, PATIENCE, |mut client| {
            let ask = ask.clone();
            async move { client.stop_job(ask).await }
        });
        let said = if sent.await?.changed { "stopped" } else { "no run goes on" };
        session.output.data(format!("{operand}: {said}\n"))?;
        Ok(())
    }
}
