//! Tests of both forms of sealed payloads, and of what must not open.

use std::collections::BTreeSet;

use convergio_domain::id::RunId;
use convergio_domain::payload::{PayloadPurpose, PayloadRef};
use convergio_domain::stream::{Seq, StreamKey};
use proptest::prelude::{prop_assert, prop_assert_eq, proptest};
use uuid::Uuid;

use super::{
    FLAG_COMPRESSED, FLAG_SALTED, FORM, HEADER_BYTES, LogError, Opening, PayloadMeta, SaltSource,
    SealedPayload, StoredPart, TAG_BYTES, TenantKey, check_opening, compress_plaintext,
    compute_commitment, encrypt_packed, first_form, open_part, payload_place, reseal_payload,
    seal_payload, to_hex,
};

const PLAINTEXT: &str = "a golden word, grüße";

/// Commitment and bytes that another implementation computes for the plaintext with a key of
/// sevens.
const FIRST_FORM: [&str; 2] = [
    "59aaf4065d75957b48f858dcbb4f8743976a5bb61f1534fc5e9819218a52f306",
    "7a9a841331710e3503393e5a10a50ea5dcf719fc964011f68a88f4287bcd8e20295f521de4cecf",
];
const THIS_FORM: [&str; 2] = [
    "9b1fd50478beda6196f4b7e0f82496775bae862cb54ef531ed372d65b7a7c34f",
    "02f4c19d57090dbee9d691f7ee7432d666daeeda896e113bcf9455b23b11afaae1f37c310668f043a602e9736175\
     af4fa963ae2f0fd2cc2594fcd4f690dea66f",
];

fn key() -> TenantKey {
    TenantKey::new([7; 32])
}

fn stream() -> StreamKey {
    StreamKey::for_run("acme".parse().unwrap(), RunId(Uuid::from_u128(9)))
}

fn at(seq: u64) -> PayloadRef {
    PayloadRef { seq: Seq(seq), index: 0 }
}

fn unhex(digits: &str) -> Vec<u8> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// Opens a payload that is stored whole.
fn read(sealed: &[u8], commitment: &str, at: PayloadRef, most: u64) -> Result<Opening, LogError> {
    let own: StoredPart = open_part(&key(), &stream(), at, sealed, commitment, most)?;
    check_opening(&key(), &stream(), at, own.bytes.clone(), &own, commitment)
}

fn meta(commitment: String, bytes: u64) -> PayloadMeta {
    let (media_type, purpose) = ("text/plain".into(), PayloadPurpose::Output);
    PayloadMeta { commitment, bytes, media_type, purpose, subject: None, reuse: None }
}

/// Seals a payload as earlier programs did; returns the commitment too.
fn sealed_before(plaintext: &[u8], at: PayloadRef) -> (Vec<u8>, String) {
    let place = payload_place(&stream(), at);
    let commitment =
        compute_commitment(&first_form::derive_salt(&key(), &place, plaintext), plaintext);
    let mut packed = compress_plaintext(plaintext).unwrap_or_else(|| plaintext.to_vec());
    packed.push(if packed.len() < plaintext.len() { FLAG_COMPRESSED } else { 0 });
    (first_form::encrypt(&key(), &place, &packed, &commitment), commitment)
}

#[test]
fn both_forms_are_what_another_implementation_makes_of_them() {
    let sealed = seal_payload(&key(), &stream(), at(3), PLAINTEXT.as_bytes(), None).unwrap();
    assert_eq!([sealed.commitment.as_str(), &to_hex(&sealed.bytes)], THIS_FORM);
    let (before, commitment) = sealed_before(PLAINTEXT.as_bytes(), at(3));
    assert_eq!([commitment.as_str(), &to_hex(&before)], FIRST_FORM);
    for [commitment, bytes] in [FIRST_FORM, THIS_FORM] {
        assert_eq!(read(&unhex(bytes), commitment, at(3), 21).unwrap().bytes, PLAINTEXT);
    }
}

#[test]
fn a_thousand_payloads_sealed_twice_by_different_packings_share_no_nonce() {
    let mut nonces = BTreeSet::new();
    for number in 0..1000_u64 {
        let plaintext = format!("{number} {}", "the same words again ".repeat(10));
        let (plaintext, at) = (plaintext.as_bytes(), at(number));
        let place = payload_place(&stream(), at);
        let commitment = compute_commitment(&key().derive_salt(&place, plaintext), plaintext);
        let compressed = compress_plaintext(plaintext).expect("it becomes smaller");
        for packing in [(plaintext, 0), (&*compressed, FLAG_COMPRESSED)] {
            let seal = || encrypt_packed(&key(), &place, &commitment, packing, SaltSource::Derived);
            let sealed = seal().unwrap();
            assert_eq!(sealed, seal().unwrap(), "the same packing gives the same bytes");
            assert_eq!(read(&sealed, &commitment, at, 999).unwrap().bytes, plaintext);
            assert_eq!(sealed[0], FORM);
            assert!(nonces.insert(sealed[1..HEADER_BYTES].to_vec()), "a nonce met two messages");
        }
    }
    assert_eq!(nonces.len(), 2000);
}

#[test]
fn a_payload_of_the_first_form_that_begins_like_this_one_is_read() {
    let begins_alike = |number: &u64| {
        let (sealed, _) = sealed_before(number.to_string().as_bytes(), at(1));
        sealed[0] == FORM
    };
    let number = (0..10_000).find(begins_alike).expect("one in 256 does").to_string();
    let (sealed, commitment) = sealed_before(number.as_bytes(), at(1));
    assert_eq!(read(&sealed, &commitment, at(1), 9).unwrap().bytes, number);
}

#[test]
fn what_was_sealed_in_the_first_form_needs_no_room_for_its_salt_in_this_one() {
    let (before, commitment) = sealed_before(PLAINTEXT.as_bytes(), at(3));
    let opened = read(&before, &commitment, at(3), 21).unwrap();
    let meta = meta(commitment.clone(), PLAINTEXT.len() as u64);
    let again = reseal_payload(&key(), &stream(), at(3), &opened, &meta).unwrap();
    assert_eq!(again.len(), before.len() + HEADER_BYTES);
    assert_eq!(read(&again, &commitment, at(3), 21).unwrap(), opened);
    let other = Opening { salt: [9; 32], ..opened };
    let commitment = compute_commitment(&other.salt, &other.bytes);
    let meta = PayloadMeta { commitment: commitment.clone(), ..meta };
    let again = reseal_payload(&key(), &stream(), at(3), &other, &meta).unwrap();
    assert_eq!(again.len(), before.len() + HEADER_BYTES + 32, "a foreign salt is stored");
    assert_eq!(read(&again, &commitment, at(3), 21).unwrap(), other);
}

#[test]
fn a_length_that_is_not_the_plaintexts_is_refused() {
    let sealed = seal_payload(&key(), &stream(), at(3), PLAINTEXT.as_bytes(), None).unwrap();
    let opened = read(&sealed.bytes, &sealed.commitment, at(3), 21).unwrap();
    let meta = meta(sealed.commitment, u64::MAX);
    assert!(reseal_payload(&key(), &stream(), at(3), &opened, &meta).is_err());
}

#[test]
fn a_record_that_claims_a_huge_plaintext_takes_no_memory() {
    let sealed = seal_payload(&key(), &stream(), at(3), &[1; 4096], None).unwrap();
    assert_eq!(read(&sealed.bytes, &sealed.commitment, at(3), u64::MAX).unwrap().bytes.len(), 4096);
}

#[test]
fn a_message_without_room_for_the_salt_that_it_names_is_refused() {
    let place = payload_place(&stream(), at(1));
    let commitment = compute_commitment(&[0; 32], b"");
    let packing = (&b"short"[..], FLAG_SALTED);
    let sealed = encrypt_packed(&key(), &place, &commitment, packing, SaltSource::Derived).unwrap();
    assert!(read(&sealed, &commitment, at(1), 5).is_err());
}

proptest! {
    #[test]
    fn what_is_sealed_is_opened_and_nothing_else_is(
        plaintext: Vec<u8>, repeats in 1_usize..200, seq in 1_u64..1000, byte: usize, bit in 0..8,
    ) {
        let plaintext = plaintext.repeat(repeats);
        let (most, at) = (plaintext.len() as u64, at(seq));
        let SealedPayload { bytes, commitment, salt } =
            seal_payload(&key(), &stream(), at, &plaintext, None).unwrap();
        let found = read(&bytes, &commitment, at, most).unwrap();
        prop_assert_eq!((&*found.bytes, found.salt), (&*plaintext, salt));
        prop_assert!(bytes.len() <= HEADER_BYTES + plaintext.len() + 1 + TAG_BYTES);
        let again = reseal_payload(&key(), &stream(), at, &found, &meta(commitment.clone(), most));
        prop_assert_eq!(&again.unwrap(), &bytes);
        let mut changed = bytes.clone();
        changed[byte % bytes.len()] ^= 1_u8 << bit;
        prop_assert!(read(&changed, &commitment, at, most).is_err());
        prop_assert!(read(&bytes, &compute_commitment(&[1; 32], &plaintext), at, most).is_err());
        let elsewhere = PayloadRef { index: 1, ..at };
        prop_assert!(read(&bytes, &commitment, elsewhere, most).is_err());
        let other = TenantKey::new([8; 32]);
        prop_assert!(open_part(&other, &stream(), at, &bytes, &commitment, most).is_err());
    }

    #[test]
    fn no_bytes_end_the_process(bytes: Vec<u8>, most: u64) {
        prop_assert!(read(&bytes, &"0".repeat(64), at(1), most).is_err());
    }
}
