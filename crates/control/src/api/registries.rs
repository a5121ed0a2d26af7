//! What the cluster is told of registries.

use std::collections::BTreeMap;
use std::time::Duration;

use image::registry::{Checked, Client, Credential, RegistryHost, known};
use model::{Registry, RegistryName};
use state::{Command, RegistryChange};
use tokio::time::timeout;
use tonic::Status;
use wire::proto::api::{
    ChangeReply, LoginRegistryReply, LoginRegistryRequest, RegistryRequest, SetRegistryRequest,
};

use crate::api::{Api, change, malformed, refused};
use crate::registries::chain;

/// How long a registry has to judge a credential. Clients wait a little longer.
const PATIENCE: Duration = Duration::from_secs(30);

fn registry_name(text: &str) -> Result<RegistryName, Status> {
    text.parse().map_err(|error: model::InvalidRegistryName| Status::invalid_argument(error.to_string()))
}

/// Keeps a credential that the registry accepts.
pub(super) async fn login(api: &Api, request: LoginRegistryRequest) -> Result<LoginRegistryReply, Status> {
    let LoginRegistryRequest { request, registry, credential } = request;
    let name = registry_name(&registry)?;
    let credential =
        credential.ok_or_else(|| Status::invalid_argument("a user name and a password are needed"))?;
    let credential = model::Credential::try_from(credential).map_err(malformed)?;
    let state = api.state().await?;
    if let Some(outcome) = api.answered(&state, &request)? {
        outcome.map_err(|rejected| refused(&rejected))?;
        return Ok(LoginRegistryReply { checked: true });
    }
    let host = name.as_str().parse::<RegistryHost>();
    let host = host.map_err(|error| Status::invalid_argument(error.to_string()))?;
    let (client, _) =
        api.registries.of(&state).map_err(|error| Status::failed_precondition(chain(&error)))?;
    let shown = Credential::from(&credential);
    let checked = match timeout(PATIENCE, client.check(&host, &shown)).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(error)) => return Err(Status::failed_precondition(chain(&error))),
        Err(_) => {
            let text = format!("registry {name} did not judge the credentials within {PATIENCE:?}");
            return Err(Status::failed_precondition(text));
        }
    };
    let put = Command::PutRegistry { registry: name, change: RegistryChange::LogIn(credential) };
    api.propose_one(&request, put).await?;
    Ok(LoginRegistryReply { checked: checked == Checked::Accepted })
}

pub(super) async fn logout(api: &Api, request: RegistryRequest) -> Result<ChangeReply, Status> {
    let RegistryRequest { request, registry } = request;
    let put = Command::PutRegistry { registry: registry_name(&registry)?, change: RegistryChange::LogOut };
    Ok(change(&api.propose_one(&request, put).await?, 0, Vec::new()))
}

pub(super) async fn remove(api: &Api, request: RegistryRequest) -> Result<ChangeReply, Status> {
    let RegistryRequest { request, registry } = request;
    let remove = Command::RemoveRegistry { registry: registry_name(&registry)? };
    Ok(change(&api.propose_one(&request, remove).await?, 0, Vec::new()))
}

pub(super) async fn set(api: &Api, request: SetRegistryRequest) -> Result<ChangeReply, Status> {
    let SetRegistryRequest { request, registry, insecure, ca, mirrors } = request;
    let name = registry_name(&registry)?;
    let mirrors = mirrors.iter().map(|mirror| registry_name(mirror)).collect::<Result<Vec<_>, _>>()?;
    if mirrors.contains(&name) {
        return Err(Status::invalid_argument(format!("registry {name} cannot be its own mirror")));
    }
    // What a client cannot be made of would keep this cluster from every registry.
    let alone = Registry { ca: ca.clone(), ..Registry::default() };
    let (settings, _) = known(&BTreeMap::from([(name.clone(), alone)]));
    Client::new(settings).map_err(|error| Status::invalid_argument(chain(&error)))?;
    let change_to = RegistryChange::Settings { mirrors, ca, insecure };
    let put = Command::PutRegistry { registry: name, change: change_to };
    Ok(change(&api.propose_one(&request, put).await?, 0, Vec::new()))
}
