//! `gantry kill`.

use model::Signal;
use wire::proto::stream::act;

use crate::failure::Failure;
use crate::session::Session;
use crate::talk::Times;
use crate::verbs::pause::perform;

/// Send a signal to a container's first process
///
/// A container that ends of it is started again where its restart policy says so. To stop a service, scale it to 0.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  gantry kill hello/web.2
  gantry kill -s HUP hello/proxy
  gantry kill --signal SIGRTMIN+3 s1-2-3")]
pub struct Kill {
    /// By its name or number
    #[arg(short, long, value_name = "SIGNAL", default_value_t = Signal::KILL)]
    signal: Signal,
    /// STACK/SERVICE.SLOT, a task's id, or STACK/SERVICE for the first of its tasks that runs
    #[arg(value_name = "REF")]
    reference: String,
}

impl Kill {
    pub(crate) async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self { signal, reference } = self;
        session.if_interrupted(format!("{signal} may have been sent"));
        perform(session, &reference, act::What::Signal(signal.number().into()), Times::Once).await?;
        session.output.data(format!("{reference}: sent {signal}\n"))?;
        Ok(())
    }
}
