//! Session tickets under keys from files, which other processes have too: a client that comes back
//! to any of them, or after a restart, needs no full handshake.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::rand;
use config::problem::Problem;
use config::settings::FileRef;
use rustls::server::ProducesTickets;

use super::files;

/// Bytes of a key file: as many as the strongest cipher needs, at least.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// How long a ticket is good for, whatever becomes of its key.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// A ticket begins with the name of its key, and with what makes a key of its own out of that.
const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 32;

/// What keys are made for; another format of tickets needs another purpose.
const PURPOSE: &[u8] = b"tidegate session ticket 1";

/// What a key file holds.
#[derive(PartialEq, Eq)]
pub(super) struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads key files.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(super) fn read(files: &[FileRef]) -> Result<Vec<Secret>, Vec<Problem>> {
    let (mut problems, mut secrets) = (Vec::new(), Vec::new());
    for file in files {
        match files::read(file) {
            Ok(bytes) if KEY_BYTES.contains(&bytes.len()) => secrets.push(Secret(bytes)),
            Ok(bytes) => {
                let (path, count) = (file.path.display(), bytes.len());
                let problem = format!("{path} is no ticket key: it has {count} bytes");
                let hint = "write 32 to 4096 random bytes, as `openssl rand -out FILE 48` does";
                problems.extend(files::wrong(file, problem, hint));
            }
            Err(more) => problems.extend(more),
        }
    }
    if problems.is_empty() {
        Ok(secrets)
    } else {
        Err(problems)
    }
}

/// Makes and opens tickets; never without a key. The first key makes them, all open them.
pub(super) struct Tickets {
    keys: Vec<Key>,
    now: fn() -> SystemTime,
}

struct Key {
    name: [u8; NAME_BYTES],
    key: Prk,
}

impl Tickets {
    /// `scope`: whatever must be the same where a ticket is made and where it is taken.
    ///
    /// # Errors
    /// A fault of the library.
    pub(super) fn new(secrets: &[Secret], scope: &[u8]) -> Result<Tickets, Unspecified> {
        let keys = secrets.iter().map(|secret| Key::new(secret, scope));
        Ok(Tickets {
            keys: keys.collect::<Result<_, _>>()?,
            now: SystemTime::now,
        })
    }

    fn seconds(&self) -> Option<u64> {
        let since = (self.now)().duration_since(UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }
}

impl Key {
    fn new(secret: &Secret, scope: &[u8]) -> Result<Key, Unspecified> {
        let scope = digest::digest(&SHA256, scope);
        let of_scope = Salt::new(HKDF_SHA256, scope.as_ref()).extract(&secret.0);
        let mut name = [0; NAME_BYTES];
        of_scope
            .expand(&[PURPOSE, b" name"], Bytes(NAME_BYTES))?
            .fill(&mut name)?;
        Ok(Key {
            name,
            key: of_scope,
        })
    }

    /// A key that is used once, so that no nonce can come twice however many tickets are made, and
    /// by however many processes.
    fn once(&self, salt: &[u8]) -> Result<(LessSafeKey, Nonce), Unspecified> {
        let info = [PURPOSE, b" key", salt];
        let key = UnboundKey::from(self.key.expand(&info, &AES_256_GCM)?);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        Ok((LessSafeKey::new(key), nonce))
    }

    fn seal(&self, plain: &[u8], now: u64) -> Result<Vec<u8>, Unspecified> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt)?;
        let (key, nonce) = self.once(&salt)?;
        let mut sealed = now.to_be_bytes().to_vec();
        sealed.extend_from_slice(plain);
        key.seal_in_place_append_tag(nonce, Aad::from(self.name), &mut sealed)?;
        Ok([&self.name[..], &salt, &sealed].concat())
    }

    /// When it was made, and what it says.
    fn open(&self, salt: &[u8], sealed: &[u8]) -> Option<(u64, Vec<u8>)> {
        let (key, nonce) = self.once(salt).ok()?;
        let mut sealed = sealed.to_vec();
        let opened = key.open_in_place(nonce, Aad::from(self.name), &mut sealed);
        let (made, plain) = opened.ok()?.split_first_chunk()?;
        Some((u64::from_be_bytes(*made), plain.to_vec()))
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(LIFETIME.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.seal(plain, self.seconds()?).ok()
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(NAME_BYTES)?;
        let (salt, sealed) = rest.split_at_checked(SALT_BYTES)?;
        let key = self.keys.iter().find(|key| key.name == name)?;
        let (made, plain) = key.open(salt, sealed)?;
        // The clocks of those who share a key need not agree to the second.
        let age = self.seconds()?.saturating_sub(made);
        (age < LIFETIME.as_secs()).then_some(plain)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tickets({} keys)", self.keys.len())
    }
}

/// A length, as the library wants it said.
struct Bytes(usize);

impl KeyType for Bytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Files;
    use super::*;

    const PLAIN: &[u8] = b"what a session is";

    fn tickets(secrets: &[u8], scope: &[u8]) -> Tickets {
        let secrets: Vec<_> = secrets.iter().map(|it| Secret(vec![*it; 48])).collect();
        Tickets::new(&secrets, scope).unwrap()
    }

    #[test]
    fn whoever_has_the_key_opens_the_ticket() {
        let ticket = tickets(&[1], b"").encrypt(PLAIN).unwrap();
        for (keys, scope, opens) in [
            (&[1][..], &b""[..], true),
            (&[2, 1], b"", true),
            (&[2], b"", false),
            (&[1], b"other clients", false),
        ] {
            let opened = tickets(keys, scope).decrypt(&ticket);
            assert_eq!(opened.as_deref(), opens.then_some(PLAIN), "{keys:?}");
        }
        // The first key makes them.
        let ticket = tickets(&[2, 1], b"").encrypt(PLAIN).unwrap();
        assert_eq!(tickets(&[1], b"").decrypt(&ticket), None);
    }

    #[test]
    fn no_two_tickets_are_alike_and_none_shows_what_it_holds() {
        let tickets = tickets(&[1], b"");
        let (one, other) = (tickets.encrypt(PLAIN), tickets.encrypt(PLAIN));
        assert_ne!(one, other);
        let shown = one.unwrap();
        assert!(
            !shown
                .windows(4)
                .any(|part| PLAIN.windows(4).any(|it| it == part))
        );
    }

    #[test]
    fn a_ticket_grows_old() {
        let mut tickets = tickets(&[1], b"");
        tickets.now = || UNIX_EPOCH + Duration::from_secs(1_000_000);
        let ticket = tickets.encrypt(PLAIN).unwrap();
        tickets.now = || UNIX_EPOCH + Duration::from_secs(1_000_000 + 12 * 3600 - 1);
        assert!(tickets.decrypt(&ticket).is_some());
        tickets.now = || UNIX_EPOCH + Duration::from_secs(1_000_000 + 12 * 3600);
        assert_eq!(tickets.decrypt(&ticket), None);
        // Made by one whose clock is ahead.
        tickets.now = || UNIX_EPOCH + Duration::from_secs(999_990);
        assert!(tickets.decrypt(&ticket).is_some());
    }

    #[test]
    fn what_was_changed_or_cut_is_no_ticket() {
        let tickets = tickets(&[1], b"");
        let ticket = tickets.encrypt(PLAIN).unwrap();
        for place in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[place] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "{place}");
            assert_eq!(tickets.decrypt(&ticket[..place]), None, "{place}");
        }
        let name = &ticket[..NAME_BYTES];
        assert_eq!(tickets.decrypt(&[name, &[0; 40]].concat()), None);
    }

    #[test]
    fn key_files_are_random_bytes_in_any_form() {
        let files = Files::new();
        files.write("text", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n");
        std::fs::write(files.path().join("raw"), [0xff; 32]).unwrap();
        files.write("short", "0123456789");
        let refer =
            |names: &[&str]| -> Vec<_> { names.iter().map(|name| files.refer(name)).collect() };
        let secrets = read(&refer(&["text", "raw"])).unwrap();
        assert_eq!(format!("{secrets:?}"), "[Secret, Secret]");
        let problems = read(&refer(&["short", "none", "raw"])).unwrap_err();
        let words: Vec<_> = problems.iter().map(|problem| &problem.problem).collect();
        assert!(words[0].ends_with("it has 10 bytes"), "{words:?}");
        assert!(words[1].starts_with("there is no file"), "{words:?}");
        assert_eq!(words.len(), 2);
    }
}
