//! What happens on an answered line: the application's commands, playback, digits and gathers, the verdict, the
//! recording.

use std::time::Duration;

use media::sdp::{Direction, Remote};
use media::{Heard, PlaybackId, RecordWhat, RecordingId};

use super::second::TARGET;
use super::{CALLEE, Call, Ctx, PRESSES_KEPT, Phase, Playback, PlaybackKind, QUEUED_MAX_MS, Recording, Step};
use crate::engine::gather::{Gather, Step as GatherStep};
use crate::engine::opening::{Due, Opening};
use crate::engine::outcome::cause;
use crate::model::call::{
    self, Accepted, Amd, AmdStatus, Command, CommandError, EndReason, GatherOrder, Overheard,
};
use crate::model::event::{CallEvent, Checksum, DigitSource, GatherEnd, PlayTo, RecordingSize};
use crate::model::trunk::Dtmf;

/// The same key heard by a second way within this time is the same press (FIELD need 7).
const SAME_PRESS: Duration = Duration::from_millis(300);
/// The detector counts frames; should none be counted, the verdict is due all the same.
const AMD_BACKSTOP: Duration = Duration::from_millis(400);
/// How long `drain` waits for queued playback.
const DRAIN_CEILING: Duration = Duration::from_secs(60);
/// How long a key that we press sounds, and the pause after it, milliseconds (CONTRACT 1.2 `override/dtmf`).
const PRESS_MS: u16 = 100;
/// The one recording of a call.
const RECORDING: RecordingId = RecordingId(0);

impl Call {
    /// Media may flow for the first time.
    pub(super) fn connect(&mut self, ctx: &mut Ctx<'_>, remote: Remote) {
        let sends = matches!(remote.direction, Direction::SendRecv | Direction::SendOnly);
        self.expect_sound(ctx, remote.address, sends);
        self.connect_again(ctx, remote);
    }

    /// What begins with the answer.
    pub(super) fn begin_talking(&mut self, ctx: &mut Ctx<'_>) {
        let max = Duration::from_millis(self.order.max_duration_ms.into());
        self.timers.max_duration = Some(ctx.now.mono + max);
        self.start_recording(ctx);
        self.start_screening(ctx);
        if self.attended {
            self.listen_for_talk(ctx);
            self.attended(ctx, Overheard::Answered);
        }
        if let Some(opening) = self.waiting_opening.take() {
            self.open_with(ctx, opening);
        }
    }

    fn start_screening(&mut self, ctx: &mut Ctx<'_>) {
        if self.order.use_amd {
            self.amd_pending = true;
            let config = ctx.settings.amd;
            let total = Duration::from_millis(config.total_ms.into());
            self.timers.amd = Some(ctx.now.mono + total + AMD_BACKSTOP);
            ctx.media(media::Command::ListenAmd { bridge: self.bridge, leg: CALLEE, config });
        }
    }

    /// The application's commands.
    pub(in crate::engine) fn command(
        &mut self,
        ctx: &mut Ctx<'_>,
        command: Command,
    ) -> Result<Accepted, CommandError> {
        match (self.phase, command) {
            (Phase::Over, _) => Err(CommandError::UnknownCall),
            (Phase::Opening | Phase::Dialing, Command::HangUp { .. }) => {
                self.hang_up(ctx);
                Ok(Accepted::Done)
            }
            (Phase::Opening | Phase::Dialing, Command::Open(opening)) => {
                self.waiting_opening = Some(opening);
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::Open(opening)) => {
                self.has_room(ctx, &opening.clip)?;
                self.open_with(ctx, opening);
                Ok(Accepted::Done)
            }
            (Phase::Opening | Phase::Dialing, Command::StopRecording | Command::PauseRecording { .. }) => {
                Err(CommandError::NoActiveRecording)
            }
            (
                Phase::Opening | Phase::Dialing,
                Command::Play { .. }
                | Command::Gather(_)
                | Command::SendDigits { .. }
                | Command::StopPlayback
                | Command::PausePlayback { .. }
                | Command::Listen { .. }
                | Command::Transfer(_),
            ) => Err(CommandError::NotAnswered),
            (_, Command::Attend { on }) => self.attend(ctx, on),
            (Phase::Answered, Command::SendDigits { digits }) => {
                self.send_digits(ctx, digits);
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::PausePlayback { on }) => {
                ctx.media(media::Command::PausePlayback { bridge: self.bridge, on });
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::Listen { tap }) => {
                ctx.media(media::Command::Listen { bridge: self.bridge, leg: CALLEE, tap: Some(tap) });
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::StopPlayback) => {
                ctx.media(media::Command::StopPlayback { bridge: self.bridge, playback: None });
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::Transfer(order)) => self.transfer(ctx, *order),
            (Phase::Answered, Command::HangUp { drain }) => {
                self.hang_up_after(ctx, drain);
                Ok(Accepted::Done)
            }
            (Phase::Answered, Command::StopRecording) => self.stop_recording(ctx),
            (Phase::Answered, Command::PauseRecording { on }) => self.pause_recording(ctx, on),
            (Phase::Answered, Command::Gather(order)) => self.start_gather(ctx, &order),
            (Phase::Answered, Command::Play { playback, clip, text, file, to }) => {
                self.has_room(ctx, &clip)?;
                self.play(ctx, clip, to, PlaybackKind::Told { playback, text, file, to });
                Ok(Accepted::Done)
            }
        }
    }

    /// Somebody speaks in the call's place, or does no longer.
    fn attend(&mut self, ctx: &mut Ctx<'_>, on: bool) -> Result<Accepted, CommandError> {
        if on && self.has_joined() {
            return Err(CommandError::Transferring);
        }
        self.attended = on;
        // Whoever did so before may have left anything behind.
        self.unattended(ctx);
        if on {
            (self.waiting_opening, self.opening) = (None, None);
            if self.phase == Phase::Answered {
                self.listen_for_talk(ctx);
            }
        }
        Ok(Accepted::Done)
    }

    /// Nobody speaks in the call's place: nothing is held for them, and nobody listens.
    pub(super) fn unattended(&self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Answered {
            let (bridge, leg) = (self.bridge, CALLEE);
            ctx.media(media::Command::PausePlayback { bridge, on: false });
            ctx.media(media::Command::Listen { bridge, leg, tap: None });
            ctx.media(media::Command::ListenTalk { bridge, leg, on: false });
        }
    }

    /// Tells whoever attends the call.
    pub(super) fn attended(&self, ctx: &mut Ctx<'_>, what: Overheard) {
        if self.attended {
            ctx.steps.push_back(Step::Overheard(what));
        }
    }

    pub(super) fn listen_for_talk(&self, ctx: &mut Ctx<'_>) {
        ctx.media(media::Command::ListenTalk { bridge: self.bridge, leg: CALLEE, on: true });
    }

    fn send_digits(&self, ctx: &mut Ctx<'_>, digits: String) {
        let mode = match self.dtmf() {
            Dtmf::Inband => media::DigitMode::Inband,
            Dtmf::Auto | Dtmf::Rfc4733 | Dtmf::Info => media::DigitMode::Rfc4733,
        };
        let (bridge, leg, on_ms, gap_ms) = (self.bridge, CALLEE, PRESS_MS, PRESS_MS);
        ctx.media(media::Command::SendDigits { bridge, leg, digits, mode, on_ms, gap_ms });
    }

    /// Begins what the call does by itself, unless somebody speaks in its place.
    pub(super) fn open_with(&mut self, ctx: &mut Ctx<'_>, opening: call::Opening) {
        if self.attended || self.second.is_some() {
            return;
        }
        let call::Opening { playback, clip, text, file, then } = opening;
        let machine = Opening::new(then);
        if machine.listens() {
            self.listen_for_talk(ctx);
        }
        self.opening = Some(machine);
        self.play(ctx, clip, PlayTo::Bridge, PlaybackKind::Told { playback, text, file, to: PlayTo::Bridge });
    }

    pub(super) fn opening_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let due = self.opening.as_mut().and_then(|opening| opening.timeout(ctx.now.mono));
        match due {
            // What it was there for is done.
            Some(Due::HangUp) => self.end(ctx, EndReason::NormalHangup, cause::NORMAL),
            Some(Due::Silence) | None => {}
        }
    }

    fn talk(&mut self, ctx: &mut Ctx<'_>, change: media::TalkChange) {
        self.attended(ctx, Overheard::Talk { on: matches!(change, media::TalkChange::Started) });
        if let Some(opening) = &mut self.opening {
            opening.talk(ctx.now.mono, matches!(change, media::TalkChange::Started));
        }
    }

    fn hang_up_after(&mut self, ctx: &mut Ctx<'_>, drain: bool) {
        if drain && !self.playbacks.is_empty() {
            self.timers.drain.get_or_insert(ctx.now.mono + DRAIN_CEILING);
        } else {
            self.hang_up(ctx);
        }
    }

    /// Whether one more clip may wait.
    fn has_room(&self, ctx: &Ctx<'_>, clip: &media::Clip) -> Result<(), CommandError> {
        let waiting = self.playbacks.iter().fold(0u32, |sum, p| sum.saturating_add(p.length_ms));
        let long = !self.playbacks.is_empty() && waiting.saturating_add(clip.duration_ms()) > QUEUED_MAX_MS;
        let full = self.playbacks.len() >= ctx.settings.playback_queue_max;
        if full || long { Err(CommandError::QueueFull) } else { Ok(()) }
    }

    fn play(
        &mut self,
        ctx: &mut Ctx<'_>,
        clip: std::sync::Arc<media::Clip>,
        to: PlayTo,
        kind: PlaybackKind,
    ) -> PlaybackId {
        let id = PlaybackId(self.next_playback);
        self.next_playback += 1;
        self.playbacks.push_back(Playback { id, length_ms: clip.duration_ms(), kind });
        if let Some(opening) = &mut self.opening {
            opening.playing();
        }
        let to = match to {
            PlayTo::Bridge => media::PlayTo::Bridge,
            PlayTo::Channel => media::PlayTo::Leg(CALLEE),
        };
        ctx.media(media::Command::Play { bridge: self.bridge, playback: id, clip, to, looped: false });
        id
    }

    fn start_gather(&mut self, ctx: &mut Ctx<'_>, order: &GatherOrder) -> Result<Accepted, CommandError> {
        if self.gather.is_some() && !order.replace {
            return Err(CommandError::GatherInProgress);
        }
        self.has_room(ctx, &order.prompt)?;
        if let Some((old, prompt)) = self.gather.take() {
            let digits = old.digits().to_owned();
            ctx.event(CallEvent::GatherTimeout { digits, reason: GatherEnd::Replaced });
            self.cut(ctx, prompt);
        }
        ctx.event(CallEvent::GatherStarted { expected: order.num_digits, timeout_ms: order.timeout_ms });
        let prompt = self.play(ctx, order.prompt.clone(), order.to, PlaybackKind::Prompt);
        let timeout = Duration::from_millis(order.timeout_ms.into());
        self.gather = Some((Gather::new(order.num_digits, timeout, order.finish_on_key), prompt));
        Ok(Accepted::Done)
    }

    /// Stops one playback if it still runs or waits.
    fn cut(&mut self, ctx: &mut Ctx<'_>, playback: PlaybackId) {
        if self.playbacks.iter().any(|p| p.id == playback) {
            ctx.media(media::Command::StopPlayback { bridge: self.bridge, playback: Some(playback) });
        }
    }

    /// What the media worker reports.
    pub(in crate::engine) fn heard(&mut self, ctx: &mut Ctx<'_>, heard: Heard) {
        match heard {
            Heard::Opened { leg: TARGET } => self.second_opened(ctx),
            Heard::Opened { .. } if self.phase == Phase::Opening && self.called.is_some() => {
                self.pick_up(ctx);
            }
            Heard::Opened { .. } => self.begin_dialling(ctx),
            Heard::Failed { leg: TARGET, error } => {
                tracing::warn!(call = %self.order.id, %error, "the media of a transfer failed");
                self.second_failed(ctx, 0, "no RTP port");
            }
            Heard::Failed { error, .. } => self.media_failed(ctx, &error),
            // Keys and speech of the second party are nobody's business.
            Heard::Digit { leg: TARGET, .. } | Heard::Talk { leg: TARGET, .. } => {}
            Heard::Digit { digit, source, .. } => {
                let source = match source {
                    media::DigitSource::Rfc4733 => DigitSource::Rfc4733,
                    media::DigitSource::Inband => DigitSource::Inband,
                    media::DigitSource::Info => DigitSource::Info,
                };
                self.digit(ctx, digit, source);
            }
            Heard::Amd { verdict, .. } => {
                let status = match verdict.status {
                    media::AmdStatus::Human => AmdStatus::Human,
                    media::AmdStatus::Machine => AmdStatus::Machine,
                    media::AmdStatus::Unknown => AmdStatus::Unknown,
                };
                let cause = verdict.cause.as_str().to_owned();
                self.screened(ctx, Amd { status, cause, confidence: verdict.confidence });
            }
            Heard::PlaybackEnded { playback, completed, played_ms } => {
                self.played(ctx, playback, completed, played_ms);
            }
            Heard::PlaybackStarted { playback } => self.began(ctx, playback),
            Heard::MediaTimeout { .. } => {
                if self.phase == Phase::Answered {
                    self.end(ctx, EndReason::MediaTimeout, cause::FAILURE);
                }
            }
            Heard::RecordingStarted { .. } => self.recording_started(ctx),
            Heard::RecordingEnded { bytes, duration_ms, sha256, .. } => {
                self.recording_settled(ctx, RecordingSize { bytes, duration_ms }, Ok(Checksum(sha256)));
            }
            Heard::RecordingFailed { fault, bytes, duration_ms, .. } => {
                self.recording_settled(ctx, RecordingSize { bytes, duration_ms }, Err(fault));
            }
            Heard::Closed { .. } => self.media_closed = true,
            Heard::Talk { change, .. } => self.talk(ctx, change),
            Heard::FirstPacket { leg } if leg == CALLEE => self.sound_came(),
            Heard::FirstPacket { .. } | Heard::DigitsSent { .. } => {}
        }
    }

    fn screened(&mut self, ctx: &mut Ctx<'_>, verdict: Amd) {
        if self.phase == Phase::Answered && std::mem::take(&mut self.amd_pending) {
            self.timers.amd = None;
            ctx.event(CallEvent::Screened(verdict));
        }
    }

    /// The detector never spoke: not one frame was counted.
    pub(super) fn no_verdict(&mut self, ctx: &mut Ctx<'_>) {
        let cause = "NOAUDIODATA".to_owned();
        self.screened(ctx, Amd { status: AmdStatus::Unknown, cause, confidence: 0.0 });
    }

    fn began(&self, ctx: &mut Ctx<'_>, began: PlaybackId) {
        let playback = self.playbacks.iter().find(|playback| playback.id == began);
        if let Some(PlaybackKind::Told { playback, .. }) = playback.map(|playback| &playback.kind) {
            self.attended(ctx, Overheard::Began { playback: playback.clone() });
        }
    }

    fn played(&mut self, ctx: &mut Ctx<'_>, ended: PlaybackId, completed: bool, played_ms: u32) {
        let Some(at) = self.playbacks.iter().position(|p| p.id == ended) else { return };
        let Some(playback) = self.playbacks.remove(at) else { return };
        match playback.kind {
            PlaybackKind::Told { playback, text, file, to } => {
                let told = playback.clone();
                self.attended(ctx, Overheard::Played { playback: told, completed, played_ms });
                ctx.event(CallEvent::Played { playback, text, file, to, completed });
            }
            PlaybackKind::Prompt => {
                if let Some((gather, prompt)) = &mut self.gather
                    && *prompt == ended
                {
                    gather.prompt_ended(ctx.now.mono);
                }
            }
        }
        if self.playbacks.is_empty()
            && let Some(opening) = &mut self.opening
        {
            opening.quiet(ctx.now.mono);
        }
        if self.timers.drain.is_some() && self.playbacks.is_empty() {
            self.hang_up(ctx);
        }
    }

    /// DTMF by SIP INFO: `application/dtmf-relay` (`Signal=5`) or `application/dtmf` (`5`).
    pub(super) fn info(&mut self, ctx: &mut Ctx<'_>, content_type: &str, body: &[u8]) {
        let text = String::from_utf8_lossy(body);
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let signal = match kind.as_str() {
            "application/dtmf-relay" => text.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                name.trim().eq_ignore_ascii_case("signal").then(|| value.trim().to_owned())
            }),
            "application/dtmf" => Some(text.trim().to_owned()),
            _ => None,
        };
        let digit = match signal.as_deref() {
            Some("10") => Some('*'),
            Some("11") => Some('#'),
            Some(one) if one.len() == 1 => one.chars().next().map(|c| c.to_ascii_uppercase()),
            _ => None,
        };
        if let Some(digit) = digit.filter(|c| matches!(c, '0'..='9' | '*' | '#' | 'A'..='D')) {
            self.digit(ctx, digit, DigitSource::Info);
        }
    }

    fn digit(&mut self, ctx: &mut Ctx<'_>, digit: char, source: DigitSource) {
        let now = ctx.now.mono;
        let again = self.presses.iter().any(|(pressed, at, by)| {
            *pressed == digit && *by != source && now.saturating_duration_since(*at) < SAME_PRESS
        });
        let meant = match self.dtmf() {
            Dtmf::Auto => true,
            Dtmf::Rfc4733 => source == DigitSource::Rfc4733,
            Dtmf::Info => source == DigitSource::Info,
            Dtmf::Inband => source == DigitSource::Inband,
        };
        if self.phase != Phase::Answered || again || !meant {
            return;
        }
        if self.presses.len() >= PRESSES_KEPT {
            self.presses.pop_front();
        }
        self.presses.push_back((digit, now, source));
        ctx.event(CallEvent::Digit { digit, source });
        self.attended(ctx, Overheard::Digit(digit));
        if let Some(opening) = &mut self.opening {
            opening.alive(now);
        }
        let Some((gather, prompt)) = &mut self.gather else { return };
        let prompt = *prompt;
        let step = gather.press(now, digit);
        self.cut(ctx, prompt);
        match step {
            GatherStep::Progress { digits, remaining } => {
                ctx.event(CallEvent::GatherProgress { digits, digit, remaining });
            }
            GatherStep::Complete { digits } => {
                self.gather = None;
                ctx.event(CallEvent::GatherProgress { digits: digits.clone(), digit, remaining: 0 });
                ctx.event(CallEvent::GatherComplete { digits });
            }
            GatherStep::Finished { digits } => {
                self.gather = None;
                ctx.event(CallEvent::GatherComplete { digits });
            }
        }
    }

    pub(super) fn gather_timeout(&mut self, ctx: &mut Ctx<'_>) {
        let due = |gather: &Gather| gather.deadline().is_some_and(|at| at <= ctx.now.mono);
        if let Some((gather, _)) = self.gather.take_if(|(gather, _)| due(gather)) {
            let digits = gather.digits().to_owned();
            ctx.event(CallEvent::GatherTimeout { digits, reason: GatherEnd::Timeout });
        }
    }

    pub(super) fn start_recording(&mut self, ctx: &mut Ctx<'_>) {
        if !self.order.record {
            return;
        }
        let name = format!("call-{}-{:013}", self.order.kaphila_id, ctx.now.wall.0);
        let path = ctx.settings.recordings.join(format!("{name}.wav"));
        self.recording = Recording::Opening(name);
        let what = match self.order.record_channels {
            media::Channels::Mono => RecordWhat::Mix,
            media::Channels::Stereo => RecordWhat::Sides(CALLEE),
        };
        ctx.media(media::Command::Record { bridge: self.bridge, recording: RECORDING, path, what });
    }

    fn recording_started(&mut self, ctx: &mut Ctx<'_>) {
        if let Recording::Opening(name) = &self.recording {
            let recording = name.clone();
            ctx.event(CallEvent::RecordingStarted { recording: recording.clone() });
            self.recording = Recording::Active(recording);
        }
    }

    fn stop_recording(&mut self, ctx: &mut Ctx<'_>) -> Result<Accepted, CommandError> {
        self.recording_started(ctx);
        let Recording::Active(name) = &self.recording else { return Err(CommandError::NoActiveRecording) };
        let recording = name.clone();
        self.recording = Recording::Finishing(recording.clone());
        ctx.event(CallEvent::RecordingStopped { recording: recording.clone() });
        ctx.media(media::Command::StopRecording { bridge: self.bridge, recording: RECORDING });
        Ok(Accepted::RecordingStopped { recording })
    }

    fn pause_recording(&mut self, ctx: &mut Ctx<'_>, on: bool) -> Result<Accepted, CommandError> {
        self.recording_started(ctx);
        let Recording::Active(name) = &self.recording else { return Err(CommandError::NoActiveRecording) };
        let recording = name.clone();
        if std::mem::replace(&mut self.recording_paused, on) != on {
            // The media first: once the pause is told, nothing more is kept.
            ctx.media(media::Command::PauseRecording { bridge: self.bridge, recording: RECORDING, on });
            let recording = recording.clone();
            ctx.event(match on {
                true => CallEvent::RecordingPaused { recording },
                false => CallEvent::RecordingResumed { recording },
            });
        }
        Ok(Accepted::RecordingPaused { recording })
    }

    fn recording_settled(
        &mut self,
        ctx: &mut Ctx<'_>,
        size: RecordingSize,
        end: Result<Checksum, media::RecordFault>,
    ) {
        let (Recording::Opening(recording) | Recording::Active(recording) | Recording::Finishing(recording)) =
            std::mem::replace(&mut self.recording, Recording::Settled)
        else {
            return;
        };
        ctx.event(match end {
            Ok(sha256) => CallEvent::RecordingCompleted { recording, size, sha256 },
            Err(fault) => CallEvent::RecordingFailed { recording, reason: fault.as_str().to_owned(), size },
        });
    }
}
