//! The command line: `trunkline serve`, `carrier`, `demo`, and the set-up commands.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use trunkline::carrier::{self, CarrierOptions};
use trunkline::cli;
use trunkline::config::{Config, load};
use trunkline::demo::{self, DemoOptions};
use trunkline::server::{self, Server};

#[derive(Parser)]
#[command(version, about = "A telephony media engine: SIP and RTP spoken by itself, HTTP to its users")]
struct Cli {
    /// The configuration file; without one the built-in defaults and the environment hold.
    #[arg(long, global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve,
    /// Run the built-in far end for trials: people, voicemails, busy lines.
    Carrier(CarrierOptions),
    /// Place a real call on loopback and show everything that happens.
    Demo(DemoOptions),
    /// Make, list, revoke, rotate and charge API keys.
    Keys(cli::KeysArgs),
    /// Add, list and remove trunks.
    Trunks(cli::TrunksArgs),
    /// Print the sample configuration: every setting with its default.
    Config,
}

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command, cli.config.as_deref()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("trunkline: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command, config: Option<&Path>) -> Result<bool, Failure> {
    match command {
        Command::Serve => serve(config).await.map(|()| true),
        Command::Carrier(options) => {
            log_to_stderr();
            carrier::run(options).await?;
            Ok(true)
        }
        Command::Demo(options) => Ok(demo::run(options).await?),
        Command::Keys(args) => {
            let config = settings(config)?;
            cli::keys(args, &config).await?;
            Ok(true)
        }
        Command::Trunks(args) => {
            let config = settings(config)?;
            cli::trunks(args, &config).await?;
            Ok(true)
        }
        Command::Config => {
            print!("{}", load::SAMPLE);
            Ok(true)
        }
    }
}

fn settings(path: Option<&Path>) -> Result<Config, Failure> {
    // A variable that is not text cannot be one of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(load::load(path, variables)?)
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("TRUNKLINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
}

async fn serve(path: Option<&Path>) -> Result<(), Failure> {
    log_to_stderr();
    let config = settings(path)?;
    // Before anything answers: who is told to stop early drains all the same.
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config.clone()).await?;
    server::announce(&server, &config).await;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    tracing::info!("stopping: no new calls, live ones have {} s", config.limits.drain_s);
    server.stop().await;
    Ok(())
}
