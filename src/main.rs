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
use trunkline::speech::Speech;

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
    /// Make, list, suspend and resume tenants.
    Tenants(cli::TenantsArgs),
    /// Add, list and remove numbers that can be called.
    Numbers(cli::NumbersArgs),
    /// Look at webhooks that were sent, send them again, or receive some for a trial.
    Webhooks(cli::WebhooksArgs),
    /// Try voices, recognisers and the language model with the configured keys.
    Speech(cli::SpeechArgs),
    /// Save the database, the sounds and the list of recordings into one file, beside a running server.
    Backup(cli::BackupArgs),
    /// Bring back what was saved.
    Restore(cli::RestoreArgs),
    /// Check everything that a server needs, in plain words.
    Doctor(cli::DoctorArgs),
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
        Command::Tenants(args) => {
            let config = settings(config)?;
            cli::tenants(args, &config).await?;
            Ok(true)
        }
        Command::Numbers(args) => {
            let config = settings(config)?;
            cli::numbers(args, &config).await?;
            Ok(true)
        }
        Command::Webhooks(args) => {
            let config = settings(config)?;
            cli::webhooks(args, &config).await?;
            Ok(true)
        }
        Command::Speech(args) => {
            log_to_stderr();
            let config = settings(config)?;
            cli::speech(args, &config).await?;
            Ok(true)
        }
        Command::Backup(args) => {
            let config = settings(config)?;
            cli::backup(args, &config).await?;
            Ok(true)
        }
        Command::Restore(args) => {
            let config = settings(config)?;
            cli::restore(args, &config).await?;
            Ok(true)
        }
        Command::Doctor(args) => doctor(args, config).await,
        Command::Config => {
            print!("{}", load::SAMPLE);
            Ok(true)
        }
    }
}

async fn doctor(args: cli::DoctorArgs, path: Option<&Path>) -> Result<bool, Failure> {
    match settings(path) {
        Ok(config) => {
            let voices = Speech::new(&config.speech).map(|speech| speech.providers().join(", then "));
            Ok(cli::doctor(args, &config, voices.map_err(|error| error.to_string())).await?)
        }
        Err(error) => {
            println!("{}", cli::unreadable(&args, error.as_ref()));
            Ok(false)
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
