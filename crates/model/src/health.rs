//! How it is told whether a container does its work.

use std::time::Duration;

/// Whether a container lives. While it has not yet been found healthy it is *starting*; one that is found unhealthy is ended
/// and follows its restart policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// The image's own check, if it has one.
    #[default]
    Image,
    /// None, whatever the image says.
    Disabled,
    Check(HealthCheck),
}

/// Compose's `healthcheck`. What is `None` is the image's, or else the constant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthCheck {
    pub probe: Option<Probe>,
    /// From the end of one probe to the next.
    pub interval: Option<Duration>,
    /// A probe that takes longer has failed.
    pub timeout: Option<Duration>,
    /// So many failures in a row make it unhealthy.
    pub retries: Option<u32>,
    /// Failures in this time after the start do not count.
    pub start_period: Option<Duration>,
    /// In place of `interval` during the start period, until the first success.
    pub start_interval: Option<Duration>,
}

impl HealthCheck {
    /// Docker's defaults, from the Dockerfile reference on HEALTHCHECK.
    pub const INTERVAL: Duration = Duration::from_secs(30);
    pub const TIMEOUT: Duration = Duration::from_secs(30);
    pub const RETRIES: u32 = 3;
    pub const START_PERIOD: Duration = Duration::ZERO;
    pub const START_INTERVAL: Duration = Duration::from_secs(5);
}

/// Whether a healthy container is to be sent work. Failing it ends nothing. Without one, a container is ready as long as it is
/// healthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    pub probe: Probe,
    pub interval: Duration,
    pub timeout: Duration,
    /// In a row, until it is ready.
    pub successes: u32,
    /// In a row, until it is not.
    pub failures: u32,
}

impl Readiness {
    pub const INTERVAL: Duration = Duration::from_secs(2);
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    pub const SUCCESSES: u32 = 1;
    pub const FAILURES: u32 = 3;
}

/// One way to ask a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A command in the container: 0 is healthy.
    Exec(Vec<String>),
    /// A request from the node; an answer from 200 to 399 is healthy. Redirects are not followed.
    Http(HttpProbe),
    /// A connection from the node.
    Tcp { port: u16 },
    /// The gRPC health checking protocol, `grpc.health.v1.Health/Check`; SERVING is healthy.
    Grpc { port: u16, service: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    pub port: u16,
    /// With its query; begins with `/`.
    pub path: String,
    /// TLS, whose certificate is not verified: it is asked by address.
    pub tls: bool,
    /// Sent as `Host`; `None` is the container's address.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
}
