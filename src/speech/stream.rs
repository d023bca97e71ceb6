//! Speech that begins before it is whole. A task of its own reads the service's answer and ends as soon as nobody
//! listens any more, which also ends the request.

use std::sync::Arc;

use media::Clip;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::SpeechError;
use super::live::Live;
use super::remote::{Cast, Remote};

/// Pieces that may wait to be taken; a reader that is slower than this slows the service down.
const PIECES: usize = 64;

/// A piece, and when the service gave the last of its sound.
type Piece = Result<(Arc<Clip>, Instant), SpeechError>;

/// Speech in pieces of 0.1 to 1.6 s, 8 kHz, to be played one after another. Dropping it ends the request.
#[derive(Debug)]
pub struct SpeechStream {
    provider: &'static str,
    first: Option<Arc<Clip>>,
    came: Instant,
    rest: Option<mpsc::Receiver<Piece>>,
}

impl SpeechStream {
    /// A text that is whole already.
    pub(super) fn whole(provider: &'static str, clip: Arc<Clip>) -> Self {
        Self { provider, first: Some(clip), came: Instant::now(), rest: None }
    }

    /// Asks a service; returns when the first piece is there.
    pub(super) async fn of(remote: Arc<Remote>, text: Arc<str>, cast: Cast) -> Result<Self, SpeechError> {
        let provider = remote.name();
        let (tell, mut rest) = mpsc::channel(PIECES);
        tokio::spawn(async move {
            let work = async {
                if let Err(error) = pour(&remote, &text, &cast, &tell).await {
                    // Nobody listens: nobody needs to know.
                    let _ = tell.send(Err(error)).await;
                }
            };
            tokio::select! {
                () = tell.closed() => {}
                () = work => {}
            }
        });
        let (first, came) = rest.recv().await.unwrap_or(Err(SpeechError::Silent))?;
        Ok(Self { provider, first: Some(first), came, rest: Some(rest) })
    }

    /// Whose voice it is.
    pub fn provider(&self) -> &'static str {
        self.provider
    }

    /// When the sound of the first piece came from the service, before anything was done to it.
    pub fn came(&self) -> std::time::Instant {
        self.came.into_std()
    }

    /// The next piece; `None` at the end. After an error nothing more comes, and what was given before is all that
    /// there is of the text.
    pub async fn next(&mut self) -> Option<Result<Arc<Clip>, SpeechError>> {
        if let Some(first) = self.first.take() {
            return Some(Ok(first));
        }
        let piece = self.rest.as_mut()?.recv().await?;
        Some(piece.map(|(clip, _)| clip))
    }
}

async fn pour(
    remote: &Remote,
    text: &str,
    cast: &Cast,
    tell: &mpsc::Sender<Piece>,
) -> Result<(), SpeechError> {
    let mut coming = remote.begin(text, cast).await?;
    let mut live: Option<Live> = None;
    while let Some((samples, rate)) = coming.next().await? {
        let came = Instant::now();
        let live = match &mut live {
            Some(live) => live,
            None => live.insert(Live::new(rate)?),
        };
        for clip in live.push(&samples)? {
            if tell.send(Ok((Arc::new(clip), came))).await.is_err() {
                return Ok(());
            }
        }
    }
    let Some(live) = live else { return Err(SpeechError::Silent) };
    for clip in live.finish()? {
        // Whoever stopped listening needs no rest.
        let _ = tell.send(Ok((Arc::new(clip), Instant::now()))).await;
    }
    Ok(())
}
