//! `cargo xtask simulate`: clusters in virtual time, by the crate `scenario`.

use anyhow::Result;

use crate::command::Call;
use crate::project;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// How many seeds to run
    #[arg(long, default_value_t = 200, value_name = "N")]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, value_name = "S")]
    from: u64,
    /// Run this one again, and show all that happens
    #[arg(long, conflicts_with_all = ["seeds", "from"], value_name = "S")]
    seed: Option<u64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let simulate = Call::of(project::program("simulate")?);
    let seeds = match options.seed {
        Some(seed) => vec!["--seed".to_owned(), seed.to_string()],
        None => {
            vec![
                "--from".to_owned(),
                options.from.to_string(),
                "--count".to_owned(),
                options.seeds.to_string(),
            ]
        }
    };
    simulate.args(seeds).show()
}
