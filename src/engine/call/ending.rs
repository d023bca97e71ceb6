//! How a call ends: once, with everything that was still open told before it.

use std::time::Duration;

use sip::Termination;

use super::{Call, Ctx, Phase, PlaybackKind, Recording, Step};
use crate::engine::outcome::{self, cause};
use crate::model::call::{Amd, AmdStatus, EndReason};
use crate::model::event::{CallEvent, GatherEnd, RecordingSize};

/// How long the media worker may take to close the bridge and finish the recording's file after the call.
const CLOSING_GRACE: Duration = Duration::from_secs(120);

impl Call {
    /// The application hangs up.
    pub(super) fn hang_up(&mut self, ctx: &mut Ctx<'_>) {
        match self.phase {
            Phase::Opening | Phase::Dialing => self.end(ctx, EndReason::Canceled, cause::NORMAL),
            Phase::Answered => self.end(ctx, EndReason::ApiHangup, cause::NORMAL),
            Phase::Over => {}
        }
    }

    /// The server stops.
    pub(in crate::engine) fn shut_down(&mut self, ctx: &mut Ctx<'_>) {
        self.end(ctx, EndReason::Shutdown, cause::NORMAL);
    }

    /// Something that must not happen did (a panic in this call, a full or broken media worker).
    pub(in crate::engine) fn fail(&mut self, ctx: &mut Ctx<'_>) {
        if self.phase == Phase::Opening && self.called.is_some() {
            // To the caller that is no refusal of anybody's.
            ctx.steps.push_back(Step::RefuseOffer(503));
        }
        self.end(ctx, EndReason::TrunkFailure, cause::FAILURE);
    }

    /// Ends the call from our side: CANCEL or BYE goes out.
    pub(super) fn end(&mut self, ctx: &mut Ctx<'_>, reason: EndReason, q850: u16) {
        if self.phase != Phase::Over {
            ctx.steps.push_back(Step::HangUp(q850));
            self.finish(ctx, reason, q850, None);
        }
    }

    pub(super) fn end_by_far_end(&mut self, ctx: &mut Ctx<'_>, termination: &Termination) {
        let (reason, own) = outcome::of_end(&termination.cause);
        self.finish(ctx, reason, termination.q850.unwrap_or(own), None);
    }

    /// The one place where a call becomes over.
    pub(super) fn finish(&mut self, ctx: &mut Ctx<'_>, reason: EndReason, q850: u16, sip_code: Option<u16>) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        self.leave_trunk(ctx);
        self.second_over(ctx, q850);
        self.timers = super::Timers::default();
        self.tell_what_was_open(ctx);
        ctx.event(CallEvent::Ended { reason, q850, sip_code });
        ctx.media(media::Command::Close { bridge: self.bridge });
        self.timers.closing = Some(ctx.now.mono + CLOSING_GRACE);
    }

    /// Whoever waits for an answer gets one before `Ended`: verdict, gather, speech, recording.
    fn tell_what_was_open(&mut self, ctx: &mut Ctx<'_>) {
        if let Recording::Opening(recording) = &self.recording {
            let recording = recording.clone();
            ctx.event(CallEvent::RecordingStarted { recording: recording.clone() });
            self.recording = Recording::Finishing(recording);
        }
        if std::mem::take(&mut self.amd_pending) {
            let cause = "HANGUP".to_owned();
            ctx.event(CallEvent::Screened(Amd { status: AmdStatus::Unknown, cause, confidence: 0.0 }));
        }
        if let Some((gather, _)) = self.gather.take() {
            let digits = gather.digits().to_owned();
            ctx.event(CallEvent::GatherTimeout { digits, reason: GatherEnd::Hangup });
        }
        for playback in std::mem::take(&mut self.playbacks) {
            if let PlaybackKind::Told { playback, text, file, to } = playback.kind {
                ctx.event(CallEvent::Played { playback, text, file, to, completed: false });
            }
        }
    }

    /// The worker or the writer never reported: say so rather than keep the call for ever.
    pub(super) fn closing_over(&mut self, ctx: &mut Ctx<'_>) {
        let state = std::mem::replace(&mut self.recording, Recording::Settled);
        if let Recording::Active(recording) | Recording::Finishing(recording) = state {
            let size = RecordingSize { bytes: 0, duration_ms: 0 };
            let reason = "not_finished".to_owned();
            ctx.event(CallEvent::RecordingFailed { recording, reason, size });
        }
        self.media_closed = true;
    }
}
