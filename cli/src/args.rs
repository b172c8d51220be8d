//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use remuda::{
    config::{Flags, Layer, Loader},
    dask::SecurityConfig,
};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    a task failed
  2    usage or configuration; nothing was created
  3    infrastructure
  130  interrupted (Ctrl-C or SIGTERM; a second one leaves at once)

Environment:
  REMUDA_CLUSTER_CLASS, REMUDA_ADDRESS                 as --cluster-class, --address
  REMUDA_CLUSTER_KWARGS, REMUDA_ADAPT_KWARGS,
  REMUDA_CLIENT_KWARGS                                 JSON objects
  REMUDA_LOG                                           what to log: warn (default), info, remuda=debug, ..
  NO_COLOR                                             no colour";

/// Runs flows of many tasks, each on its own temporary cluster.
#[derive(Debug, Parser)]
#[command(name = "remuda", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a flow file; its result is printed on standard output
    #[command(after_help = EXIT_CODES)]
    Run(RunArgs),
    /// Check a flow file and its configuration, without creating anything
    Validate(ValidateArgs),
    /// List the cluster classes, or describe one
    Classes {
        /// As JSON
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: Option<ClassesCommand>,
    },
    /// Show the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Hold a cluster for others to use, or look at one
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Tell the decisions in a log of --explain-scaling=FILE, and whether they are made again the same
    ///
    /// Exit code 1: some are not; 2: it is no such log, or ends in the middle of a line.
    ExplainScaling {
        /// What --explain-scaling=FILE wrote
        log: PathBuf,
        /// Every decision, also those that change nothing
        #[arg(long)]
        all: bool,
    },
    /// Remove what killed programs left behind: processes, temporary directories
    ///
    /// Only what is provably Remuda's; programs that run are left alone.
    #[command(after_help = EXIT_CODES)]
    Gc {
        /// Remove nothing; say what would be removed
        #[arg(long)]
        dry_run: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the Python text that a Dask scheduler preloads where nothing may be put into it later
    Shim {
        /// To be read, or kept in a file; otherwise one line for `dask scheduler --preload`
        #[arg(long)]
        plain: bool,
    },
    /// Print the JSON Schema of flow files, for editors
    Schema,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClassesCommand {
    /// Every keyword argument of a class
    Describe {
        /// Path of the class, as in `local::LocalCluster`
        path: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// Start a cluster and hold it until Ctrl-C or SIGTERM; its address is printed on standard output
    #[command(after_help = EXIT_CODES)]
    Start(StartArgs),
    /// Versions, workers, memory, tasks by state
    Status(At),
    /// The workers, a line each
    Workers(At),
    /// The last lines that the scheduler and the workers logged
    Logs {
        #[command(flatten)]
        at: At,
        /// So many lines of each
        #[arg(long, short = 'n', default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        lines: u32,
        /// Only of the worker with this name or address; repeatable
        #[arg(long = "worker", value_name = "WORKER")]
        workers: Vec<String>,
    },
    /// Set the number of workers of a cluster that `remuda cluster start` holds, or let it follow the work
    #[command(group(clap::ArgGroup::new("number").required(true).args(["workers", "adapt"])))]
    Scale {
        #[command(flatten)]
        at: At,
        /// How many workers there should be
        #[arg(long, short = 'n', allow_negative_numbers = true)]
        workers: Option<u32>,
        /// Let the number of workers follow the work, within these bounds: `0..10`; a side that is left out stays as it was
        #[arg(long, value_name = "MIN..MAX", allow_hyphen_values = true)]
        adapt: Option<String>,
        /// Also more than 10000 workers
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The configuration file; otherwise remuda.yaml or remuda.toml here, if there is one
    #[arg(long, short, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The cluster class, as in `local::DaskCluster`
    #[arg(long, value_name = "CLASS")]
    cluster_class: Option<String>,
    /// A keyword argument of the class; `resources.GPU=1` sets one inside another
    #[arg(long = "kwarg", value_name = "KEY=VALUE")]
    kwargs: Vec<String>,
    /// Let the number of workers follow the work, within these bounds: `0..10`; either may be left out
    #[arg(long, value_name = "MIN..MAX", allow_hyphen_values = true)]
    adapt: Option<String>,
    /// Write a scheduler file there, as `dask scheduler --scheduler-file` does; removed at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) scheduler_file: Option<PathBuf>,
    /// Tell the decisions of adaptive scaling on standard error, with their reasons; with =FILE, write them there whole
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(crate) explain_scaling: Option<String>,
    /// Print a line of JSON instead of the address: address, dashboard, name, class, security
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl StartArgs {
    pub(crate) fn loader(&self) -> Loader {
        let flags =
            Flags { cluster_class: self.cluster_class.clone(), kwargs: self.kwargs.clone(), address: None, adapt: self.adapt.clone() };
        let loader = Loader::from_process().file_flag("--file").flags(&flags);
        match &self.file {
            Some(file) => loader.file(file),
            None => loader,
        }
    }
}

/// A scheduler that runs.
#[derive(Debug, clap::Args)]
pub(crate) struct At {
    /// tcp://host:port or tls://host:port
    pub(crate) address: String,
    /// For tls://: the cluster's certificate authority
    #[arg(long, value_name = "FILE")]
    tls_ca_file: Option<String>,
    /// For tls://: the client's certificate
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// For tls://: the key of that certificate
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl At {
    pub(crate) fn security(&self) -> Option<SecurityConfig> {
        let (tls_ca_file, tls_cert, tls_key) = (self.tls_ca_file.clone(), self.tls_cert.clone(), self.tls_key.clone());
        let given = tls_ca_file.is_some() || tls_cert.is_some() || tls_key.is_some();
        given.then_some(SecurityConfig { tls_ca_file, tls_cert, tls_key })
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Each value that is set, for all layers together
    Show {
        /// Say where each value comes from, and what was dropped
        #[arg(long)]
        origin: bool,
        /// With the `runner` part of this flow file
        flow: Option<PathBuf>,
        /// A param of the flow, by YAML's rules for values
        #[arg(long = "param", value_name = "NAME=VALUE")]
        params: Vec<String>,
        #[command(flatten)]
        settings: Settings,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct RunArgs {
    /// The flow file, YAML or TOML
    pub(crate) flow: PathBuf,
    /// A param of the flow, by YAML's rules for values
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print the result as one line of JSON, also where it is text
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the result goes, and how: a file (.arrow and .json say what it holds), `-` for standard output, or `arrow`, `json`, `text`
    #[arg(long, value_name = "FILE|FORM")]
    pub(crate) output: Option<String>,
    /// Tell the decisions of adaptive scaling on standard error, with their reasons; with =FILE, write them there whole
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    pub(crate) explain_scaling: Option<String>,
    /// No progress and no summary; what waits for long is told
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ValidateArgs {
    /// The flow file, YAML or TOML
    pub(crate) flow: PathBuf,
    /// A param of the flow, by YAML's rules for values
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub(crate) params: Vec<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Print what would be run
    #[arg(long)]
    pub(crate) plan: bool,
}

/// The flags' layer of the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// The cluster class, as in `local::LocalCluster`
    #[arg(long, value_name = "CLASS")]
    cluster_class: Option<String>,
    /// A keyword argument of the class; `resources.GPU=1` sets one inside another
    #[arg(long = "kwarg", value_name = "KEY=VALUE")]
    kwargs: Vec<String>,
    /// Let the number of workers follow the work, within these bounds: `0..10`; either may be left out
    #[arg(long, value_name = "MIN..MAX", allow_hyphen_values = true)]
    adapt: Option<String>,
    /// A scheduler that runs already, instead of a class: tcp://host:port
    #[arg(long)]
    address: Option<String>,
    /// The configuration file; otherwise remuda.yaml or remuda.toml here, if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Settings {
    /// All layers, with a flow file's among them.
    pub(crate) fn loader(&self, flow: Layer) -> Loader {
        let flags = Flags {
            cluster_class: self.cluster_class.clone(),
            kwargs: self.kwargs.clone(),
            address: self.address.clone(),
            adapt: self.adapt.clone(),
        };
        let loader = Loader::from_process().flow(flow).flags(&flags);
        match &self.config {
            Some(file) => loader.file(file),
            None => loader,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }
}
