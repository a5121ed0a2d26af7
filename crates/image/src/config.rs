//! What an image says about running it (OCI image specification, "Image Configuration"). It comes with the image and is
//! not trusted: whoever reads a [`Config`] need not check it again.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Digest, HealthCheck, Probe, Protocol, Signal};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::document::{Platform, read_json};

/// How an image wants to be run, where the task does not say otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    /// `NAME=value`, in the image's order.
    pub env: Vec<String>,
    /// An absolute path; `/` where the image says nothing.
    pub working_dir: String,
    /// `user`, `uid`, `user:group` and so on: to be looked up in the container. `None` is root.
    pub user: Option<String>,
    /// A number of this kernel's; `None` is SIGTERM.
    pub stop_signal: Option<u8>,
    /// Documentation for people: publishing is the service's business.
    pub exposed_ports: Vec<(u16, Protocol)>,
    /// Absolute paths at which Docker would make a volume by itself.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Docker's extension, `HEALTHCHECK`. Without a probe it has timings only, or says that there is no check: the two
    /// come to the same for whoever merges it with a service's.
    pub health: Option<HealthCheck>,
}

#[derive(Debug, thiserror::Error)]
pub enum InvalidConfig {
    #[error("it is not the JSON of an image's configuration")]
    Json(#[source] serde_json::Error),
    #[error("it is for {found}, and this machine runs {wanted}")]
    Platform { found: String, wanted: String },
    #[error("its root file system is of type `{0}`, not of layers")]
    RootFs(String),
    #[error("it lists {listed} layers and the manifest {actual}")]
    Layers { listed: usize, actual: usize },
    #[error("its {field} `{value}` is not acceptable: {problem}")]
    Field { field: &'static str, value: String, problem: &'static str },
}

/// A configuration with what ties it to its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageConfig {
    pub(crate) config: Config,
    /// Of the uncompressed layers, lowest first.
    pub(crate) diff_ids: Vec<Digest>,
}

#[derive(Deserialize)]
struct Read {
    architecture: String,
    os: String,
    config: Option<Execution>,
    rootfs: RootFs,
}

#[derive(Serialize, Deserialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: String,
    diff_ids: Vec<String>,
}

/// Go writes `null` for an empty list or map.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Execution {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, IgnoredAny>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, IgnoredAny>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
}

/// Docker's image specification 1.2. Times are in nanoseconds; 0 is what is not said.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Healthcheck {
    test: Option<Vec<String>>,
    interval: Option<i64>,
    timeout: Option<i64>,
    start_period: Option<i64>,
    start_interval: Option<i64>,
    retries: Option<i64>,
}

/// `execve` takes no single string that is longer (`MAX_ARG_STRLEN`).
const ARGUMENT: usize = 128 << 10;

/// More than any image has; `execve` gives up at some megabytes together.
const ARGUMENTS: usize = 4096;

impl ImageConfig {
    /// Reads a configuration for this machine. `layers` is how many the manifest has.
    pub(crate) fn parse(text: &[u8], layers: usize) -> Result<Self, InvalidConfig> {
        let Read { architecture, os, config, rootfs } = read_json(text).map_err(InvalidConfig::Json)?;
        let (found, wanted) = (Platform { os, architecture, variant: None }, Platform::here());
        // Variants are the index's business: an image that was named by its own digest is meant.
        if !found.is_kin(&wanted) {
            return Err(InvalidConfig::Platform { found: found.to_string(), wanted: wanted.to_string() });
        }
        if rootfs.kind != "layers" {
            return Err(InvalidConfig::RootFs(shown(&rootfs.kind)));
        }
        if rootfs.diff_ids.len() != layers {
            return Err(InvalidConfig::Layers { listed: rootfs.diff_ids.len(), actual: layers });
        }
        let diff_ids = rootfs.diff_ids.iter().map(|id| {
            id.parse::<Digest>().map_err(|_| field("rootfs.diff_ids", id, "it is not a sha256 digest"))
        });
        Ok(Self {
            diff_ids: diff_ids.collect::<Result<_, _>>()?,
            config: Config::try_from(config.unwrap_or_default())?,
        })
    }

    /// The platform that a configuration is for, whatever else it says.
    pub(crate) fn platform(text: &[u8]) -> Result<Platform, InvalidConfig> {
        #[derive(Deserialize)]
        struct Head {
            architecture: String,
            os: String,
        }
        let Head { architecture, os } = read_json(text).map_err(InvalidConfig::Json)?;
        Ok(Platform { os, architecture, variant: None })
    }

    /// A configuration for one layer that came without: it says what the layer is and nothing about running it.
    pub(crate) fn of_plain_layer(diff_id: Digest) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written {
            architecture: String,
            os: String,
            config: BTreeMap<String, String>,
            rootfs: RootFs,
        }
        let Platform { os, architecture, variant: _ } = Platform::here();
        let rootfs = RootFs { kind: "layers".to_owned(), diff_ids: vec![diff_id.to_string()] };
        let written = Written { architecture, os, config: BTreeMap::new(), rootfs };
        serde_json::to_vec(&written).expect("strings can be written as JSON")
    }
}

impl TryFrom<Execution> for Config {
    type Error = InvalidConfig;

    fn try_from(read: Execution) -> Result<Self, InvalidConfig> {
        let Execution {
            user,
            exposed_ports,
            env,
            entrypoint,
            cmd,
            volumes,
            working_dir,
            labels,
            stop_signal,
            healthcheck,
            shell,
        } = read;
        let stop_signal = stop_signal.filter(|signal| !signal.is_empty()).map(|written| {
            let signal = written.parse::<Signal>().map(Signal::number);
            signal.map_err(|_| field("StopSignal", &written, "there is no such signal"))
        });
        let ports =
            exposed_ports.unwrap_or_default().into_keys().filter_map(|written| port(&written).transpose());
        Ok(Self {
            entrypoint: arguments("Entrypoint", entrypoint)?,
            cmd: arguments("Cmd", cmd)?,
            env: environment(arguments("Env", env)?)?,
            working_dir: match working_dir.filter(|path| !path.is_empty()) {
                Some(path) => absolute("WorkingDir", path)?,
                None => "/".to_owned(),
            },
            user: user.filter(|user| !user.is_empty()).map(checked_user).transpose()?,
            stop_signal: stop_signal.transpose()?,
            exposed_ports: ports.collect::<Result<_, _>>()?,
            volumes: volumes
                .unwrap_or_default()
                .into_keys()
                .map(|path| absolute("Volumes", path))
                .collect::<Result<_, _>>()?,
            labels: labels.unwrap_or_default(),
            health: healthcheck.map(|check| health(check, shell)).transpose()?,
        })
    }
}

fn shown(value: &str) -> String {
    value.chars().take(100).flat_map(char::escape_debug).collect()
}

fn field(field: &'static str, value: &str, problem: &'static str) -> InvalidConfig {
    InvalidConfig::Field { field, value: shown(value), problem }
}

fn arguments(name: &'static str, list: Option<Vec<String>>) -> Result<Vec<String>, InvalidConfig> {
    let list = list.unwrap_or_default();
    if list.len() > ARGUMENTS {
        return Err(field(name, &format!("of {} strings", list.len()), "it is too long"));
    }
    for argument in &list {
        if argument.contains('\0') {
            return Err(field(name, argument, "it has a NUL character"));
        }
        if argument.len() >= ARGUMENT {
            return Err(field(name, argument, "it is longer than a program's argument can be"));
        }
    }
    Ok(list)
}

fn environment(list: Vec<String>) -> Result<Vec<String>, InvalidConfig> {
    match list.iter().find(|variable| variable.split_once('=').is_none_or(|(name, _)| name.is_empty())) {
        Some(variable) => Err(field("Env", variable, "it is not of the form NAME=value")),
        None => Ok(list),
    }
}

fn health(read: Healthcheck, shell: Option<Vec<String>>) -> Result<HealthCheck, InvalidConfig> {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = read;
    let retries = retries.filter(|retries| *retries != 0).map(|retries| {
        let problem = "it is not a number of retries";
        u32::try_from(retries).map_err(|_| field("Healthcheck.Retries", &retries.to_string(), problem))
    });
    Ok(HealthCheck {
        probe: probe(test, shell)?,
        interval: time("Healthcheck.Interval", interval)?,
        timeout: time("Healthcheck.Timeout", timeout)?,
        retries: retries.transpose()?,
        start_period: time("Healthcheck.StartPeriod", start_period)?,
        start_interval: time("Healthcheck.StartInterval", start_interval)?,
    })
}

/// The first word says how to read the others. Docker takes a kind that it does not know for no check, and so an image
/// that runs there runs here.
fn probe(test: Option<Vec<String>>, shell: Option<Vec<String>>) -> Result<Option<Probe>, InvalidConfig> {
    const TEST: &str = "Healthcheck.Test";
    let mut words = arguments(TEST, test)?.into_iter();
    let mut args = match words.next().as_deref() {
        Some("CMD") => Vec::new(),
        Some("CMD-SHELL") => match arguments("Shell", shell)? {
            none if none.is_empty() => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell,
        },
        Some(_) | None => return Ok(None),
    };
    let before = args.len();
    args.extend(words);
    if args.len() == before {
        // Docker runs it and fails every time.
        return Err(field(TEST, "", "it names no command"));
    }
    Ok(Some(Probe::Exec(args)))
}

fn time(name: &'static str, nanos: Option<i64>) -> Result<Option<Duration>, InvalidConfig> {
    let Some(nanos) = nanos.filter(|nanos| *nanos != 0) else { return Ok(None) };
    let time = u64::try_from(nanos).map(Duration::from_nanos);
    time.map(Some).map_err(|_| field(name, &nanos.to_string(), "it is a negative time"))
}

/// A path becomes part of a path on this machine, so it has to stay below its root.
fn absolute(name: &'static str, path: String) -> Result<String, InvalidConfig> {
    let problem = if !path.starts_with('/') {
        "it is not an absolute path"
    } else if path.split('/').any(|component| component == "..") {
        "it leads upwards with `..`"
    } else if path.contains('\0') || path.len() > 4096 {
        "it is not a path"
    } else {
        return Ok(path);
    };
    Err(field(name, &path, problem))
}

/// A number that wraps around would be root (CVE-2024-40635), so numbers are those that Docker takes: 0 to 2^31-1.
fn checked_user(user: String) -> Result<String, InvalidConfig> {
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.as_str(), None),
    };
    for part in [Some(name), group].into_iter().flatten() {
        let problem = if part.is_empty() {
            "a part of it is empty"
        } else if part.len() > 256 || part.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':') {
            "it is not a name"
        } else if part.starts_with(['-', '+']) {
            "a name or number does not start with a sign"
        } else if part.bytes().all(|c| c.is_ascii_digit()) && part.parse::<i32>().is_err() {
            "the number is larger than 2147483647"
        } else {
            continue;
        };
        return Err(field("User", &user, problem));
    }
    Ok(user)
}

/// `None` for a protocol that gantry does not publish, such as SCTP: exposing it means nothing here.
fn port(written: &str) -> Result<Option<(u16, Protocol)>, InvalidConfig> {
    let (number, protocol) = written.split_once('/').unwrap_or((written, "tcp"));
    let number = number.parse::<u16>().ok().filter(|number| *number > 0);
    let number = number.ok_or_else(|| field("ExposedPorts", written, "it is not a port"))?;
    Ok(match protocol {
        "tcp" => Some((number, Protocol::Tcp)),
        "udp" => Some((number, Protocol::Udp)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
