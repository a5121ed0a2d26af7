//! `gantry rebalance`.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio::time::Instant;
use wire::proto::api::{
    ConvergeRequest, PlanRebalanceRequest, RebalanceMove, RebalancePlan, RebalanceRequest,
};

use crate::cluster::{Effect, Operation, PATIENCE, request};
use crate::failure::Failure;
use crate::render::{self, Format};
use crate::session::Session;
use crate::settle::{Accepted, settle};
use crate::verbs::Wait;

const LIST: &str = "gantry ps";

/// Show which tasks would be better off on another node by now, and move them
///
/// What runs stays where it is when nodes come back, are added or are activated again. This finds what is uneven: tasks of a service,
/// what it is spread over, and what is reserved of each node. Without --yes nothing is moved. With it, each task is made anew
/// elsewhere, at the pace and in the order of its service's updates. Jobs, global services, what is packed on purpose
/// (`placement=binpack`), what has files of its node (bind mounts) and what another service has to be near stay where they are.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry rebalance              shows what it would move, and why
  gantry rebalance --yes        moves it")]
pub struct Rebalance {
    /// Move what is shown
    #[arg(long, conflicts_with = "output")]
    yes: bool,
    /// How to write what there is to move
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Serialize)]
struct Row<'a> {
    service: &'a str,
    slot: u32,
    from: &'a str,
    to: &'a str,
    reason: &'a str,
}

fn row(found: &RebalanceMove) -> Row<'_> {
    let RebalanceMove { task, service, from, to, reason } = found;
    Row { service, slot: task.map_or(0, |task| task.slot), from, to, reason }
}

fn table(rows: &[Row<'_>]) -> String {
    if rows.is_empty() {
        return "nothing to move\n".to_owned();
    }
    let cells = |row: &Row<'_>| {
        let Row { service, slot, from, to, reason } = row;
        vec![format!("{service}.{slot}"), (*from).to_owned(), (*to).to_owned(), (*reason).to_owned()]
    };
    render::table::table(&["TASK", "FROM", "TO", "WHY"], &rows.iter().map(cells).collect::<Vec<_>>())
}

impl Rebalance {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut cluster = session.cluster()?;
        let operation = Operation { operand: "", effect: Effect::Reads, list: LIST };
        let reply = cluster.call(operation, PATIENCE, |mut client| async move {
            client.plan_rebalance(PlanRebalanceRequest {}).await
        });
        let RebalancePlan { moves } = reply.await?;
        let rows: Vec<_> = moves.iter().map(row).collect();
        session.output.data(render::list(self.output, &rows, |_| table(&rows)))?;
        if !self.yes || moves.is_empty() {
            if !moves.is_empty() && matches!(self.output, Format::Table | Format::Wide) {
                session.output.data("nothing was moved; `gantry rebalance --yes` moves them\n")?;
            }
            return Ok(());
        }
        session.if_interrupted(format!("the change may have been made; `{LIST}` shows it"));
        let tasks = moves.iter().filter_map(|found| found.task).collect();
        let rebalance = RebalanceRequest { request: request(), tasks };
        let operation = Operation { operand: "", effect: Effect::Changes, list: LIST };
        let sent = cluster.call(operation, self.wait.timeout, |mut client| {
            let rebalance = rebalance.clone();
            async move { client.rebalance(rebalance).await }
        });
        let reply = sent.await?;
        let services: BTreeSet<String> = moves.into_iter().map(|found| found.service).collect();
        let targets: Vec<String> = services.into_iter().collect();
        let operand = targets.join(", ");
        let goal = ConvergeRequest { targets, gone: false, generation: reply.generation };
        let accepted = Accepted { operand, look: LIST.to_owned(), goal };
        settle(session, &mut cluster, accepted, self.wait, begun).await
    }
}
