//! One engine, three carriers, a bad network and impatient applications, all in one loop that jumps to the next
//! deadline. Everything follows from one seed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use media::Clip;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use trunkline::engine::{Engine, Input, Output, Settings};
use trunkline::model::call::{CallOrder, Command, GatherOrder, Surface, TrunkPlan};
use trunkline::model::event::{PlayTo, Stamped};
use trunkline::model::purpose::Purpose;
use trunkline::model::{CallId, Now, PhoneNumber, Secret, Timestamp};

use crate::ears::Ears;
use crate::far::Far;
use crate::net::{Net, Packet, Weather, below, chance};

const ENGINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100)), 5060);
pub(crate) const RING_TIMEOUT_MS: u32 = 20_000;
pub(crate) const MAX_DURATION_MS: u32 = 60_000;

pub(crate) struct World {
    pub(crate) now: Now,
    start: Instant,
    pub(crate) engine: Engine,
    fars: Vec<Far>,
    net: Net,
    ears: Ears,
    rng: ChaCha8Rng,
    wishes: BTreeMap<(Instant, u64), CallId>,
    counter: u64,
    /// Everything that happened, in order.
    pub(crate) events: Vec<Stamped>,
    clip: Arc<Clip>,
}

impl World {
    #[expect(
        clippy::disallowed_methods,
        reason = "virtual time needs some beginning; only differences count"
    )]
    pub(crate) fn new(seed: u64, weather: Weather) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut engine_seed = [0; 32];
        rng.fill_bytes(&mut engine_seed);
        let settings = Settings {
            sip_address: ENGINE.ip(),
            sip_address_other: None,
            media_address: ENGINE.ip(),
            media_address_other: None,
            local_nets: Vec::new(),
            rtp_bind: ENGINE.ip(),
            rtp_ports: (10_000, 60_000),
            leg: media::LegSettings::default(),
            recordings: PathBuf::from("/nowhere"),
            playback_queue_max: 20,
            max_calls: 10_000,
            amd: media::AmdConfig::default(),
        };
        let sip =
            sip::Config { max_sessions: 100_000, max_transactions: 200_000, ..sip::Config::new(ENGINE) };
        let start = Instant::now();
        let fars = (1..=3u8).map(|n| Far::new((Ipv4Addr::new(10, 0, 0, n), 5060).into(), n)).collect();
        Self {
            now: Now { mono: start, wall: Timestamp(1_800_000_000_000) },
            start,
            engine: Engine::new(settings, sip, engine_seed),
            fars,
            net: Net::new(weather),
            ears: Ears::default(),
            rng,
            wishes: BTreeMap::new(),
            counter: 0,
            events: Vec::new(),
            clip: Arc::new(Clip::from_samples(vec![1000i16; 16_000])),
        }
    }

    pub(crate) fn kill_trunk(&mut self, trunk: usize) {
        self.fars[trunk].dead = true;
    }

    pub(crate) fn roll(&mut self, bound: u32) -> u32 {
        below(&mut self.rng, bound)
    }

    /// An order over all three trunks, beginning at any.
    pub(crate) fn order(&mut self, number: u128) -> CallOrder {
        let first = below(&mut self.rng, 3) as usize;
        let trunks = (0..3).map(|n| trunk(&self.fars[(first + n) % 3])).collect();
        CallOrder {
            id: CallId(number),
            kaphila_id: format!("1800000000.{number}"),
            surface: Surface::Kaphila,
            purpose: Purpose::default(),
            key: 1,
            tenant: "default".into(),
            submitted_number: "14155550100".into(),
            to: PhoneNumber::parse_lenient("14155550100").expect("a number"),
            from: None,
            trunks,
            redials_ms: Vec::new(),
            ring_timeout_ms: RING_TIMEOUT_MS,
            max_duration_ms: MAX_DURATION_MS,
            use_amd: chance(&mut self.rng, 50),
            record: chance(&mut self.rng, 80),
            record_channels: media::Channels::Mono,
            voice_name: "en-US-Neural2-A".into(),
            webhook_url: Some("https://example.com/hook".into()),
            created_at: self.now.wall,
        }
    }

    /// Dials, and lets the application ask for things at random moments of the call.
    pub(crate) fn place(&mut self, order: CallOrder) {
        let id = order.id;
        self.engine.originate(self.now, Arc::new(order)).expect("the engine has room");
        for _ in 0..below(&mut self.rng, 8) {
            self.counter += 1;
            let at = self.now.mono + Duration::from_millis(u64::from(below(&mut self.rng, 50_000)));
            self.wishes.insert((at, self.counter), id);
        }
        self.settle();
    }

    fn wish(&mut self, id: CallId) {
        let to = if chance(&mut self.rng, 50) { PlayTo::Bridge } else { PlayTo::Channel };
        let command = match below(&mut self.rng, 8) {
            0 => Command::HangUp { drain: chance(&mut self.rng, 30) },
            1 => Command::StopRecording,
            2 | 3 => Command::Gather(GatherOrder {
                prompt: self.clip.clone(),
                to,
                num_digits: u8::try_from(1 + below(&mut self.rng, 4)).expect("small"),
                timeout_ms: 5000,
                finish_on_key: chance(&mut self.rng, 30).then_some('5'),
                replace: chance(&mut self.rng, 50),
            }),
            _ => {
                let (playback, text) = ("tts".to_owned(), Some("words".to_owned()));
                Command::Play { playback, clip: self.clip.clone(), text, file: None, to }
            }
        };
        // Whether it is taken depends on the moment; that it is answered and harmless is what is tested.
        drop(self.engine.command(self.now, id, command));
    }

    /// Performs everything that is due at this moment.
    fn settle(&mut self) {
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Event(event) => self.events.push(event),
                Output::Trunk(..) | Output::Incoming(_) | Output::Overheard(..) => {}
                Output::Media(command) => self.ears.command(&mut self.rng, self.now.mono, command),
                Output::Transmit(transmit) => {
                    let packet =
                        Packet { from: ENGINE, to: transmit.to.addr, bytes: transmit.bytes.to_vec() };
                    self.net.send(&mut self.rng, self.now.mono, &packet);
                }
            }
        }
        for far in &mut self.fars {
            far.work(&mut self.rng, self.now.mono);
            while let Some(transmit) = far.transmit() {
                let packet =
                    Packet { from: far.address, to: transmit.to.addr, bytes: transmit.bytes.to_vec() };
                self.net.send(&mut self.rng, self.now.mono, &packet);
            }
        }
    }

    fn next_at(&self) -> Option<Instant> {
        let fars = self.fars.iter().filter_map(Far::next_at).min();
        let wish = self.wishes.keys().next().map(|(at, _)| *at);
        [self.engine.poll_timeout(), self.net.next_at(), self.ears.next_at(), fars, wish]
            .into_iter()
            .flatten()
            .min()
    }

    /// Jumps to the next deadline and works it off. False when nothing is left to wait for, or `until` is reached.
    pub(crate) fn step(&mut self, until: Duration) -> bool {
        let limit = self.start + until;
        let Some(at) = self.next_at().filter(|at| *at <= limit) else {
            let by = limit.saturating_duration_since(self.now.mono);
            self.now = self.now.plus(by);
            return false;
        };
        self.now = self.now.plus(at.saturating_duration_since(self.now.mono));
        let now = self.now.mono;
        while let Some(packet) = self.net.arrive(now) {
            self.deliver(&packet);
        }
        while let Some(event) = self.ears.hear(now) {
            self.engine.handle(self.now, Input::Heard(event));
            self.settle();
        }
        while let Some(first) = self.wishes.first_entry()
            && first.key().0 <= now
        {
            let id = first.remove();
            self.wish(id);
            self.settle();
        }
        if self.engine.poll_timeout().is_some_and(|at| at <= now) {
            self.engine.handle(self.now, Input::Timeout);
        }
        self.settle();
        true
    }

    fn deliver(&mut self, packet: &Packet) {
        if packet.to == ENGINE {
            let peer = sip::Peer::udp(packet.from);
            self.engine.handle(self.now, Input::Datagram(peer, &packet.bytes));
        } else if let Some(far) = self.fars.iter_mut().find(|far| far.address == packet.to) {
            far.receive(self.now.mono, packet.from, &packet.bytes);
        }
        self.settle();
    }

    /// Nothing is left anywhere.
    pub(crate) fn assert_empty(&self) {
        let none = sip::Counts::default();
        assert_eq!(self.engine.residue(), (0, none), "the engine leaks");
        assert_eq!(self.engine.live_calls(), 0);
        assert_eq!(self.ears.opened, self.ears.closed, "a bridge was left open");
        for far in self.fars.iter().filter(|far| !far.dead) {
            assert_eq!(far.counts(), none, "a far end leaks");
            assert_eq!(far.begun, far.ended, "a session of the far end did not end");
        }
    }
}

fn trunk(far: &Far) -> TrunkPlan {
    TrunkPlan {
        endpoint: format!("{}-endpoint", far.address.ip()),
        host: far.address.ip().to_string(),
        port: None,
        hops: vec![trunkline::model::call::Hop::udp(far.address)],
        username: String::new(),
        password: Secret::default(),
        dial_prefix: "00".into(),
        codecs: vec!["PCMU".into(), "PCMA".into()],
        caller_id: None,
        no_response_timeout_ms: 2000,
        profile: Arc::default(),
    }
}
