//! `trunkline speech try`: asks the configured services, one by one if wanted, and says what they gave and how long it
//! took. `trunkline speech voices` lists what names of voices stand for. Neither needs a database.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use media::{Channels, Clip, FRAME, Frame};
use tokio::time::Instant;

use super::{CliError, table};
use crate::config::Config;
use crate::hearing::{Hearing, HearingEvent, Listening};
use crate::llm::{Ask, Llm, Message, Piece};
use crate::speech::{Clauses, Speech};

/// How long a recogniser may take after the last sound.
const WORDS_WITHIN: Duration = Duration::from_secs(30);
/// The head of a WAV file as it is written here.
const WAV_HEAD: usize = 44;

/// Try voices, recognisers and the language model with the configured keys.
#[derive(Clone, Debug, Args)]
pub struct SpeechArgs {
    #[command(subcommand)]
    command: SpeechCommand,
}

#[derive(Clone, Debug, Subcommand)]
enum SpeechCommand {
    /// Say a text, let it be recognised, or ask the language model.
    Try(TryArgs),
    /// List the usual names of voices and what they stand for.
    Voices,
}

#[derive(Clone, Debug, Args)]
struct TryArgs {
    /// Say the text by this voice alone: embedded, espeak, flite, google, openai, azure, elevenlabs or polly. Without
    /// any of --tts, --stt and --llm the configured voices say it.
    #[arg(long)]
    tts: Option<String>,
    /// Let this recogniser alone hear the text (spoken by the voice) or the file of --file: openai, openai-realtime,
    /// deepgram or vosk.
    #[arg(long)]
    stt: Option<String>,
    /// Ask the language model and say its answer.
    #[arg(long)]
    llm: bool,
    /// The voice's name.
    #[arg(long, default_value = "alloy")]
    voice: String,
    /// The language, for the recogniser, such as en-US.
    #[arg(long, default_value = "")]
    language: String,
    /// An 8 kHz mono WAV file that the recogniser hears instead of the text.
    #[arg(long)]
    file: Option<PathBuf>,
    /// Where what was said is written, as a WAV file.
    #[arg(long)]
    out: Option<PathBuf>,
    /// What to say or to ask.
    #[arg(default_value = "Hello, this is trunkline. Thank you for calling.")]
    text: String,
}

/// Runs the command; what to print.
pub(super) async fn run(args: SpeechArgs, config: &Config) -> Result<String, CliError> {
    match args.command {
        SpeechCommand::Voices => voices(config),
        SpeechCommand::Try(args) => attempt(&args, config).await,
    }
}

fn failed(error: impl std::fmt::Display) -> CliError {
    CliError::Failed(error.to_string())
}

fn voices(config: &Config) -> Result<String, CliError> {
    let speech = Speech::new(&config.speech).map_err(failed)?;
    let mut rows = vec![["NAME", "PROVIDER", "SPEAKS AS", "LANGUAGE"].map(str::to_owned).to_vec()];
    for voice in speech.voices() {
        rows.push(vec![voice.name, voice.provider.to_owned(), voice.speaks_as, voice.language]);
    }
    Ok(table(&rows))
}

async fn attempt(args: &TryArgs, config: &Config) -> Result<String, CliError> {
    let mut config = config.clone();
    if let Some(name) = &args.tts {
        config.speech.tts = vec![name.clone()];
    }
    if let Some(name) = &args.stt {
        config.speech.stt = vec![name.clone()];
    }
    let mut said = String::new();
    let text = if args.llm { asked(args, &config, &mut said).await? } else { args.text.clone() };
    let samples = match &args.file {
        Some(file) => read(file)?,
        None => spoken(args, &config, &text, &mut said).await?,
    };
    if let Some(out) = &args.out {
        let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let head = media::wav::header(Channels::Mono, data.len() as u64);
        std::fs::write(out, head.into_iter().chain(data).collect::<Vec<u8>>())?;
        line(&mut said, format!("written to {}", out.display()));
    }
    if args.stt.is_some() {
        heard(args, &config, &samples, &mut said).await?;
    }
    Ok(said)
}

fn line(said: &mut String, text: impl std::fmt::Display) {
    // Writing to a String cannot fail.
    let _ = writeln!(said, "{text}");
}

async fn asked(args: &TryArgs, config: &Config, said: &mut String) -> Result<String, CliError> {
    let llm = Llm::new(&config.llm).map_err(failed)?;
    let llm = llm.ok_or_else(|| failed("no language model is configured: set llm.base_url and llm.model"))?;
    let ask = Ask { messages: vec![Message::User(args.text.clone())], ..Ask::default() };
    let begun = Instant::now();
    let mut reply = llm.ask(&ask).await.map_err(failed)?;
    let (mut text, mut clauses) = (String::new(), Clauses::new());
    while let Some(piece) = reply.next().await {
        let Piece::Text(more) = piece.map_err(failed)? else { continue };
        if text.is_empty() {
            line(said, format!("{}: first word after {} ms", llm.model(), begun.elapsed().as_millis()));
        }
        for clause in clauses.push(&more) {
            line(said, format!("{:>6} ms  {}", begun.elapsed().as_millis(), clause.trim()));
        }
        text.push_str(&more);
    }
    if let Some(clause) = clauses.finish() {
        line(said, format!("{:>6} ms  {clause}", begun.elapsed().as_millis()));
    }
    Ok(text)
}

async fn spoken(
    args: &TryArgs,
    config: &Config,
    text: &str,
    said: &mut String,
) -> Result<Vec<i16>, CliError> {
    let speech = Speech::new(&config.speech).map_err(failed)?;
    let begun = Instant::now();
    let mut stream = speech.stream(text, &args.voice).await.map_err(failed)?;
    let first = begun.elapsed();
    let mut samples = Vec::new();
    while let Some(piece) = stream.next().await {
        let piece: std::sync::Arc<Clip> = piece.map_err(failed)?;
        samples.extend_from_slice(piece.samples());
    }
    let listed = speech.listed(&args.voice);
    let voice = listed.as_ref().map_or("", |voice| voice.speaks_as.as_str());
    line(
        said,
        format!(
            "{} as {voice}: first sound after {} ms, {} ms of sound after {} ms",
            stream.provider(),
            first.as_millis(),
            samples.len() / 8,
            begun.elapsed().as_millis()
        ),
    );
    if args.tts.as_deref().is_some_and(|wanted| !stream.provider().starts_with(wanted)) {
        return Err(failed(format!(
            "{} failed, and the built-in voice spoke instead; the log says why",
            voice_of(args)
        )));
    }
    Ok(samples)
}

fn voice_of(args: &TryArgs) -> &str {
    args.tts.as_deref().unwrap_or("the voice")
}

/// The samples of a WAV file as `--out` writes it.
fn read(file: &Path) -> Result<Vec<i16>, CliError> {
    let bytes = std::fs::read(file)?;
    let head: &[u8; WAV_HEAD] = bytes.first_chunk().ok_or_else(|| failed("the file is no WAV file"))?;
    let rate = u32::from_le_bytes([head[24], head[25], head[26], head[27]]);
    let plain = head.starts_with(b"RIFF") && head[20..24] == [1, 0, 1, 0] && head[34..36] == [16, 0];
    if !plain || rate != media::RATE {
        return Err(failed("the file must be a WAV file of 16 bits, 8 kHz, mono"));
    }
    let samples = bytes[WAV_HEAD..].chunks_exact(2);
    Ok(samples.map(|pair| i16::from_le_bytes([pair[0], pair[1]])).collect())
}

async fn heard(args: &TryArgs, config: &Config, samples: &[i16], said: &mut String) -> Result<(), CliError> {
    let hearing = Hearing::new(&config.speech).map_err(failed)?;
    let listening = Listening { language: args.language.clone(), hints: Vec::new() };
    let (mut ears, mut words) = hearing.listen(listening).map_err(failed)?;
    let silence = [0; FRAME];
    let pauses = std::iter::repeat_n(&silence[..], 25);
    let frames: Vec<&[i16]> =
        pauses.clone().chain(samples.chunks(FRAME)).chain(pauses.clone()).chain(pauses).collect();
    let begun = Instant::now();
    // In the pace of a call, as services expect it.
    let mut pace = tokio::time::interval(Duration::from_millis(u64::from(media::FRAME_MS)));
    let pace = async {
        for piece in frames {
            pace.tick().await;
            let mut frame: Frame = [0; FRAME];
            frame[..piece.len()].copy_from_slice(piece);
            ears.hear(&frame);
        }
        drop(ears);
        tokio::time::sleep(WORDS_WITHIN).await;
    };
    tokio::pin!(pace);
    loop {
        let event = tokio::select! {
            event = words.next() => event,
            () = &mut pace => return Err(failed("the recogniser did not come to an end")),
        };
        let at = begun.elapsed().as_millis();
        match event {
            None => return Ok(()),
            Some(HearingEvent::SpeechStarted) => line(said, format!("{at:>6} ms  speech began")),
            Some(HearingEvent::Partial { text }) => line(said, format!("{at:>6} ms  … {text}")),
            Some(HearingEvent::Final { text }) => line(said, format!("{at:>6} ms  “{text}”")),
            Some(HearingEvent::Failed { error }) => return Err(failed(error)),
        }
    }
}
