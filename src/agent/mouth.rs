//! The mouth: makes clauses into sound, one after the other, in a task of its own, so that the first words are heard
//! while the rest is still being made. Dropping it ends what is being made.

use std::sync::Arc;
use std::time::Instant;

use media::Clip;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ClauseId;
use crate::clock;
use crate::speech::Speech;

/// Clauses that may wait; an answer has fewer.
const CLAUSES_MAX: usize = 256;
/// Pieces of sound that may wait to be played.
const PIECES_MAX: usize = 32;

/// A piece of a clause's sound, or its end.
#[derive(Debug)]
pub(super) enum Piece {
    /// The voice is asked for it.
    Asked(ClauseId, Instant),
    /// More of it, and when the voice gave the first of it.
    Sound(ClauseId, Arc<Clip>, Instant),
    /// All of it was given, or no more can be.
    End(ClauseId),
}

/// Speaks one clause after the other.
#[derive(Debug)]
pub(super) struct Mouth {
    clauses: mpsc::Sender<(ClauseId, String)>,
    pieces: mpsc::Receiver<Piece>,
    task: JoinHandle<()>,
}

impl Mouth {
    /// A mouth that speaks in this voice.
    pub(super) fn new(speech: Speech, voice: String) -> Self {
        let (clauses, waiting) = mpsc::channel(CLAUSES_MAX);
        let (told, pieces) = mpsc::channel(PIECES_MAX);
        let task = tokio::spawn(speak(speech, voice, waiting, told));
        Self { clauses, pieces, task }
    }

    /// Speaks after all that was given before. `false` where too much waits.
    pub(super) fn say(&self, id: ClauseId, text: String) -> bool {
        self.clauses.try_send((id, text)).is_ok()
    }

    /// The next piece. Nothing is lost when this future is dropped.
    pub(super) async fn next(&mut self) -> Option<Piece> {
        self.pieces.recv().await
    }
}

impl Drop for Mouth {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn speak(
    speech: Speech,
    voice: String,
    mut clauses: mpsc::Receiver<(ClauseId, String)>,
    told: mpsc::Sender<Piece>,
) {
    while let Some((id, text)) = clauses.recv().await {
        if told.send(Piece::Asked(id, clock::now().mono)).await.is_err() {
            return;
        }
        match speech.stream(&text, &voice).await {
            Ok(mut stream) => {
                let came = stream.came();
                while let Some(piece) = stream.next().await {
                    let Ok(clip) = piece.inspect_err(|error| tracing::warn!(%error, "speech broke off"))
                    else {
                        break;
                    };
                    if told.send(Piece::Sound(id, clip, came)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => tracing::error!(%error, "a clause could not be spoken"),
        }
        if told.send(Piece::End(id)).await.is_err() {
            return;
        }
    }
}
