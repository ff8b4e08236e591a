//! Who a client with a verified certificate is, in the words of `x-forwarded-client-cert`.

use std::rc::Rc;
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::x509::{self, Validity};

/// Longest value. An element that would make it longer is left out; the hash always fits.
const BYTES_MAX: usize = 4096;

/// Envoy's value for this certificate: `Hash=…;Subject="…";URI=…;DNS=…`. Printable ASCII whatever
/// the certificate says, and nothing in it can look like an element of its own. `None` when the
/// certificate is not valid now: a session that is taken up again may be older than that.
pub(crate) fn of(certificate: &CertificateDer<'_>, now: SystemTime) -> Option<Rc<[u8]>> {
    let parsed = x509::parse(certificate)?;
    if x509::validity(&parsed, now) != Validity::Now {
        return None;
    }
    let mut value = String::from("Hash=");
    x509::push_hex(&mut value, digest(&SHA256, certificate).as_ref());
    // Its text already escapes quotes and backslashes.
    let subject = x509::distinguished(parsed.subject());
    push(&mut value, &format!(";Subject=\"{subject}\""));
    let names = x509::alternative_names(&parsed);
    for name in names {
        if let GeneralName::URI(uri) = name {
            push(&mut value, &format!(";URI={}", quoted(uri)));
        }
    }
    for name in names {
        if let GeneralName::DNSName(name) = name {
            push(&mut value, &format!(";DNS={}", quoted(name)));
        }
    }
    Some(value.into_bytes().into())
}

fn push(value: &mut String, element: &str) {
    if value.len() + element.len() <= BYTES_MAX {
        value.push_str(element);
    }
}

/// A value as it is if it is plain, else between quotes.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+%".contains(&byte);
    if text.bytes().all(plain) {
        return text.to_owned();
    }
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push_str("\\x");
                x509::push_hex(&mut out, &[byte]);
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DnType, SanType};
    use rustls::pki_types::pem::PemObject as _;

    use super::super::testing::Authority;
    use super::*;

    fn identity(params: &CertificateParams) -> String {
        let pem = Authority::new().sign(params).cert;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let value = of(&der, SystemTime::now()).unwrap();
        assert!(value.iter().all(|byte| (b' '..=b'~').contains(byte)));
        let mut hash = String::new();
        x509::push_hex(&mut hash, digest(&SHA256, &der).as_ref());
        let value = std::str::from_utf8(&value).unwrap();
        value
            .strip_prefix(&format!("Hash={hash};"))
            .unwrap()
            .to_owned()
    }

    fn params(subject: &[(DnType, &str)], names: Vec<SanType>) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.subject_alt_names = names;
        params
    }

    #[test]
    fn a_plain_certificate_reads_as_envoy_writes_it() {
        let subject = [
            (DnType::CountryName, "CH"),
            (DnType::OrganizationName, "Tide"),
            (DnType::CommonName, "client one"),
        ];
        let names = vec![
            SanType::DnsName("one.test".try_into().unwrap()),
            SanType::URI("spiffe://tide/ns/default/sa/one".try_into().unwrap()),
            SanType::DnsName("two.test".try_into().unwrap()),
        ];
        let expected = "Subject=\"CN=client one,O=Tide,C=CH\";\
                        URI=spiffe://tide/ns/default/sa/one;DNS=one.test;DNS=two.test";
        assert_eq!(identity(&params(&subject, names)), expected);
        assert_eq!(identity(&params(&[], Vec::new())), "Subject=\"\"");
    }

    #[test]
    fn a_hostile_certificate_cannot_say_more_than_it_is() {
        let subject = [
            (
                DnType::CommonName,
                "a\";URI=spiffe://tide/admin;Subject=\"\r\nX: y\\",
            ),
            (DnType::OrganizationName, " #1, é+"),
            (DnType::CustomDnType(vec![1, 2, 3, 4]), "odd"),
        ];
        let names = vec![
            SanType::URI("spiffe://a;DNS=b,Hash=c\" \\".try_into().unwrap()),
            SanType::DnsName("d=e\n".try_into().unwrap()),
        ];
        let expected = "Subject=\"1.2.3.4=#6f6464,O=\\ #1\\, \\c3\\a9\\+,\
                        CN=a\\\"\\;URI\\=spiffe://tide/admin\\;Subject\\=\\\"\\0d\\0aX: y\\\\\";\
                        URI=\"spiffe://a;DNS=b,Hash=c\\\" \\\\\";DNS=\"d=e\\x0a\"";
        assert_eq!(identity(&params(&subject, names)), expected);
    }

    #[test]
    fn what_does_not_fit_is_left_out_whole() {
        let long = "l".repeat(3000);
        let subject = [(DnType::CommonName, long.as_str())];
        let uri = |text: &str| SanType::URI(text.to_owned().try_into().unwrap());
        let names = vec![uri("spiffe://one"), uri(&long), uri("spiffe://two")];
        let value = identity(&params(&subject, names));
        let expected = format!("Subject=\"CN={long}\";URI=spiffe://one;URI=spiffe://two");
        assert_eq!(value, expected);
        let subject = [(DnType::CommonName, "m".repeat(5000))];
        let subject = subject
            .each_ref()
            .map(|(kind, text)| (kind.clone(), text.as_str()));
        assert_eq!(identity(&params(&subject, vec![uri("u:1")])), "URI=u:1");
    }

    #[test]
    fn outside_of_its_time_a_certificate_is_nobody() {
        let mut params = params(&[], Vec::new());
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let pem = Authority::new().sign(&params).cert;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let year = |year: u64| {
            let since = Duration::from_secs((year - 1970) * 365 * 86_400 + 200 * 86_400);
            std::time::UNIX_EPOCH + since
        };
        let valid = [2019, 2020, 2021].map(|at| of(&der, year(at)).is_some());
        assert_eq!(valid, [false, true, false]);
    }
}
