//! The random numbers of one call, and what is offered with them: codecs, keys of digits, keys of encryption.

use std::fmt;

use media::Codec;
use media::sdp::{OfferConfig, Security};
use media::srtp::{MASTER, MasterKey};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::model::call::TrunkPlan;
use crate::model::trunk::{Dtmf, Srtp};

/// The random numbers of one call. Their text is not shown: keys follow from them.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Seeds {
    /// `o=` session id.
    pub(in crate::engine) sdp_session: u64,
    /// SSRC, first sequence number and timestamp follow from it.
    pub(in crate::engine) media: u64,
    /// The keys of encrypted sound follow from it.
    pub(in crate::engine) keys: [u8; 32],
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds(…)")
    }
}

impl Seeds {
    /// What is offered on a trunk. Each far end, told apart by its number, is told a key of its own: one that refused
    /// the call shall not be able to listen to it.
    pub(super) fn offer_config(&self, trunk: Option<&TrunkPlan>, far: u64) -> OfferConfig {
        let names = trunk.map(|trunk| trunk.codecs.as_slice()).unwrap_or_default();
        let mut codecs: Vec<Codec> = names.iter().filter_map(|name| Codec::from_name(name)).collect();
        if codecs.is_empty() {
            codecs = vec![Codec::Pcmu, Codec::Pcma];
        }
        let dtmf = trunk.map(|trunk| trunk.profile.dtmf).unwrap_or_default();
        let security = match trunk.map(|trunk| trunk.profile.srtp).unwrap_or_default() {
            Srtp::Never => Security::Never,
            Srtp::Optional => Security::Optional(self.key(far)),
            Srtp::Required => Security::Required(self.key(far)),
        };
        OfferConfig { codecs, telephone_event: matches!(dtmf, Dtmf::Auto | Dtmf::Rfc4733), security }
    }

    fn key(&self, far: u64) -> MasterKey {
        let mut rng = ChaCha8Rng::from_seed(self.keys);
        rng.set_stream(far);
        let mut key = MasterKey([0; MASTER]);
        rng.fill_bytes(&mut key.0);
        key
    }
}
