//! What holds for the whole cluster.

use state::{Command, State};
use tonic::Status;
use wire::proto::api::{ChangeReply, PutSettingsRequest, Settings};
use wire::proto::model as nouns;

use crate::api::{Api, change, malformed};

pub(super) fn now(state: &State) -> Settings {
    let strategy = state.cluster().map(|cluster| cluster.strategy).unwrap_or_default();
    Settings { placement: nouns::Strategy::from(strategy).into() }
}

pub(super) async fn configure(api: &Api, request: PutSettingsRequest) -> Result<ChangeReply, Status> {
    let PutSettingsRequest { request, placement } = request;
    if placement == 0 {
        return Ok(ChangeReply::default());
    }
    let at = wire::Field("PutSettingsRequest", "placement");
    let strategy: model::Strategy = at.choice::<nouns::Strategy, _>(placement).map_err(malformed)?;
    let done = api.propose_one(&request, Command::Configure { strategy }).await?;
    Ok(change(&done, 0, Vec::new()))
}
