//! What images count: a rule of the operator's, as only the engine knows what it makes of one.
//!
//! The tokens are those that an engine puts beside, or in the place of, what the chat template
//! shows for an image. They depend on the content part alone, which the prefix hash covers: an
//! image is never fetched.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use super::{CountError, Counted, Counts, Prompt, TokenSource};

/// How much of an image is decoded to find its size; photographs may have profiles and a preview
/// before it.
const HEADER_BYTES_MAX: usize = 1 << 20;
/// Version of the rules below.
const RULE: &str = "prompt-cache images 1";
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What an image counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImageTokens {
    /// Nothing but what the template shows for it: never more than the engine counts.
    #[default]
    Ignore,
    /// So many tokens each.
    Fixed(u32),
    /// By its size.
    Tiles(Tiles),
}

/// An image is scaled down to limits and covered with square tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// Side of a tile in pixels; not zero.
    pub tile_px: u32,
    /// Tokens of each tile.
    pub tokens_per_tile: u32,
    /// Tokens of each image besides; the only ones of an image with `detail: low`.
    pub base_tokens: u32,
    /// The longer side is scaled down to it first; not zero.
    pub long_side_px_max: u32,
    /// The shorter side is scaled down to it then; not zero.
    pub short_side_px_max: u32,
}

impl Default for Tiles {
    fn default() -> Self {
        Self {
            tile_px: 512,
            tokens_per_tile: 170,
            base_tokens: 85,
            long_side_px_max: 2048,
            short_side_px_max: 768,
        }
    }
}

/// An image of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image {
    /// Width and height in pixels, where the request itself holds the image.
    pub size_px: Option<(u32, u32)>,
    /// Whether it asks to be seen small.
    low_detail: bool,
}

impl Image {
    /// The image in a content part; `None` for other parts.
    pub fn of_part(part: &[u8]) -> Option<Self> {
        let part: Map<String, Value> = serde_json::from_slice(part).ok()?;
        if !part.get("type")?.as_str()?.contains("image") {
            return None;
        }
        let named = ["image_url", "image"]
            .iter()
            .find_map(|name| part.get(*name));
        let member = |name: &str| named.and_then(|image| image.get(name)?.as_str());
        let url = named.and_then(Value::as_str).or_else(|| member("url"));
        let detail = member("detail").or_else(|| part.get("detail")?.as_str());
        Some(Self {
            size_px: url.and_then(size_of_data_url),
            low_detail: detail == Some("low"),
        })
    }
}

/// The size of an image in a `data:` URL, from the start of its bytes.
fn size_of_data_url(url: &str) -> Option<(u32, u32)> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    if !head.ends_with(";base64") {
        return None;
    }
    let most = HEADER_BYTES_MAX / 3 * 4;
    let data = data.as_bytes().get(..most).unwrap_or(data.as_bytes());
    let size = imagesize::blob_size(&BASE64.decode(data).ok()?).ok()?;
    let side = |pixels: usize| u32::try_from(pixels).ok().filter(|pixels| *pixels > 0);
    Some((side(size.width)?, side(size.height)?))
}

impl ImageTokens {
    /// Tokens of an image.
    pub fn of(&self, image: &Image) -> u64 {
        match self {
            Self::Ignore => 0,
            Self::Fixed(tokens) => u64::from(*tokens),
            Self::Tiles(tiles) => tiles.of(image),
        }
    }

    /// `source` with images counted by this rule.
    pub(super) fn over(self, source: Arc<dyn TokenSource>) -> Arc<dyn TokenSource> {
        if self == Self::Ignore {
            return source;
        }
        let rule = format!("{RULE}\0{}\0{self:?}", source.version());
        let version = blake3::hash(rule.as_bytes()).to_hex();
        Arc::new(WithImages {
            rule: self,
            version: version.chars().take(32).collect(),
            source,
        })
    }
}

impl Tiles {
    /// An image of unknown size counts as the smallest.
    fn of(&self, image: &Image) -> u64 {
        let base = u64::from(self.base_tokens);
        if image.low_detail {
            return base;
        }
        let tiles = image.size_px.map_or(1, |size| self.number(size));
        base.saturating_add(tiles.saturating_mul(u64::from(self.tokens_per_tile)))
    }

    /// The most that an image can count.
    pub fn most(&self) -> u64 {
        self.of(&Image {
            size_px: Some((u32::MAX, u32::MAX)),
            low_detail: false,
        })
        .max(self.of(&Image {
            size_px: Some((self.long_side_px_max, self.short_side_px_max)),
            low_detail: false,
        }))
    }

    fn number(&self, (width, height): (u32, u32)) -> u64 {
        let (mut long, mut short) = (width.max(height), width.min(height));
        if long > self.long_side_px_max {
            short = scaled(short, self.long_side_px_max, long);
            long = self.long_side_px_max;
        }
        if short > self.short_side_px_max {
            long = scaled(long, self.short_side_px_max, short);
            short = self.short_side_px_max;
        }
        let along = |side: u32| u64::from(side.div_ceil(self.tile_px.max(1)));
        along(long).saturating_mul(along(short))
    }
}

/// `side * to / from`, rounded down, at least 1; `to` is below `from`.
fn scaled(side: u32, to: u32, from: u32) -> u32 {
    let scaled = u64::from(side) * u64::from(to) / u64::from(from.max(1));
    u32::try_from(scaled).unwrap_or(side).max(1)
}

/// A source, and what images add to it.
struct WithImages {
    rule: ImageTokens,
    /// Digest of the source's version and the rule.
    version: String,
    source: Arc<dyn TokenSource>,
}

impl WithImages {
    /// Image tokens of all blocks up to each of `ends` (ascending), and of the whole prompt.
    fn images(&self, prompt: &Prompt<'_>, ends: &[u32]) -> (Vec<u64>, u64) {
        let mut all = 0u64;
        let mut at_ends = Vec::with_capacity(ends.len());
        let mut ends = ends.iter().peekable();
        let blocks = u32::try_from(prompt.block_count()).unwrap_or(u32::MAX);
        for block in 0..blocks {
            for image in prompt.parts_json(block).filter_map(Image::of_part) {
                all = all.saturating_add(self.rule.of(&image));
            }
            while ends.next_if(|end| **end <= block).is_some() {
                at_ends.push(all);
            }
        }
        at_ends.extend(ends.map(|_| all));
        (at_ends, all)
    }
}

impl TokenSource for WithImages {
    fn version(&self) -> &str {
        &self.version
    }

    fn count(
        &self,
        prompt: &Prompt<'_>,
        from: Option<Counted>,
        boundaries: &[u32],
        go_on: &dyn Fn() -> bool,
    ) -> Result<Counts, CountError> {
        let (at_boundaries, all) = self.images(prompt, boundaries);
        // What the ledger holds has the images of its prefix in it; the source knows of none.
        let from = from.map(|from| {
            let (known, _) = self.images(prompt, &[from.block]);
            let images = known.first().copied().unwrap_or_default();
            Counted {
                block: from.block,
                tokens: from.tokens.saturating_sub(images),
            }
        });
        let mut counts = self.source.count(prompt, from, boundaries, go_on)?;
        for (tokens, images) in counts.prefixes.iter_mut().zip(at_boundaries) {
            *tokens = tokens.saturating_add(images);
        }
        counts.prompt = counts.prompt.map(|tokens| tokens.saturating_add(all));
        Ok(counts)
    }

    fn warm_up(&self) {
        self.source.warm_up();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tokens::{Encoding, builtin};

    /// The first bytes of a PNG of that size.
    fn png(width: u32, height: u32) -> String {
        let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        bytes.extend(width.to_be_bytes());
        bytes.extend(height.to_be_bytes());
        bytes.extend([8, 2, 0, 0, 0]);
        format!("data:image/png;base64,{}", BASE64.encode(bytes))
    }

    /// A JPEG with a large segment before the one that tells its size.
    fn jpeg(width: u16, height: u16, before: usize) -> String {
        let mut bytes = vec![0xff, 0xd8];
        for _ in 0..before {
            bytes.extend([0xff, 0xe2, 0xff, 0xff]);
            bytes.extend(vec![0; 0xfffd]);
        }
        bytes.extend([0xff, 0xc0, 0, 17, 8]);
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        format!("data:image/jpeg;base64,{}", BASE64.encode(bytes))
    }

    fn gif(width: u16, height: u16) -> String {
        let mut bytes = b"GIF89a".to_vec();
        bytes.extend(width.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend([0; 8]);
        format!("data:image/gif;base64,{}", BASE64.encode(bytes))
    }

    fn of(rule: ImageTokens, part: &Value) -> Option<u64> {
        let part = serde_json::to_vec(part).unwrap();
        Image::of_part(&part).map(|image| rule.of(&image))
    }

    /// The examples that OpenAI publishes for its rule, and what leaves the size open.
    #[test]
    fn images_count_by_their_size() {
        let part = |url: &str| serde_json::json!({"type": "image_url", "image_url": {"url": url}});
        let low = |url: &str| serde_json::json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}});
        let table = [
            (part(&png(1024, 1024)), 765),
            (part(&png(2048, 4096)), 1105),
            (part(&png(4096, 2048)), 1105),
            (part(&png(512, 512)), 255),
            (part(&png(513, 1)), 425),
            (part(&png(1, 1)), 255),
            (part(&png(u32::MAX, u32::MAX)), 765),
            (part(&png(u32::MAX, 1)), 765),
            (part(&jpeg(2048, 4096, 0)), 1105),
            (part(&jpeg(2048, 4096, 3)), 1105),
            (part(&gif(1024, 1024)), 765),
            (low(&png(4096, 8192)), 85),
            (low("https://example.org/x.png"), 85),
            (part("https://example.org/x.png"), 255),
            (part(&png(0, 9)), 255),
            (part("data:image/png;base64,!!"), 255),
            (part("data:image/png;base64,"), 255),
            (part("data:image/png,plain"), 255),
            (part("data:"), 255),
            // A size beyond what is looked at.
            (part(&jpeg(2048, 4096, 20)), 255),
            (
                serde_json::json!({"type": "input_image", "image_url": png(1024, 1024)}),
                765,
            ),
            (
                serde_json::json!({"type": "input_image", "image_url": png(1024, 1024), "detail": "low"}),
                85,
            ),
            (
                serde_json::json!({"type": "image", "image": png(1024, 1024)}),
                765,
            ),
            (serde_json::json!({"type": "image"}), 255),
        ];
        for (part, tokens) in table {
            let shown = part.to_string().chars().take(90).collect::<String>();
            let rule = ImageTokens::Tiles(Tiles::default());
            assert_eq!(of(rule, &part), Some(tokens), "{shown}");
            assert_eq!(of(ImageTokens::Fixed(7), &part), Some(7), "{shown}");
            assert_eq!(of(ImageTokens::Ignore, &part), Some(0), "{shown}");
        }
        let no_images = [
            serde_json::json!({"type": "text", "text": "image"}),
            serde_json::json!({"type": "input_audio", "input_audio": {"data": "AA=="}}),
            serde_json::json!({"image_url": {"url": "x"}}),
            serde_json::json!({"type": 5}),
        ];
        for part in no_images {
            assert_eq!(of(ImageTokens::Fixed(7), &part), None, "{part}");
        }
    }

    fn tiles(rule: Tiles, size: (u32, u32)) -> u64 {
        ImageTokens::Tiles(rule).of(&Image {
            size_px: Some(size),
            low_detail: false,
        })
    }

    #[test]
    fn every_key_of_the_rule_counts() {
        let patches = Tiles {
            tile_px: 28,
            tokens_per_tile: 1,
            base_tokens: 2,
            long_side_px_max: 10_000,
            short_side_px_max: 10_000,
        };
        assert_eq!(tiles(patches, (280, 56)), 22);
        assert_eq!(tiles(patches, (281, 57)), 35);
        let halved = Tiles {
            long_side_px_max: 140,
            ..patches
        };
        assert_eq!(tiles(halved, (280, 56)), 7);
        let narrow = Tiles {
            short_side_px_max: 28,
            ..patches
        };
        assert_eq!(tiles(narrow, (280, 56)), 7);
    }

    fn counts(rule: ImageTokens, from: Option<Counted>, boundaries: &[u32]) -> Counts {
        let body = serde_json::json!({
            "tools": [{"type": "function", "function": {"name": "image"}}],
            "messages": [
                {"role": "system", "content": "hello world"},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": png(1024, 1024)}},
                    {"type": "text", "text": "hello world", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": png(512, 512)}},
                ]},
            ],
        });
        let body = serde_json::to_vec(&body).unwrap();
        let source = rule.over(builtin(Encoding::O200kBase));
        let prompt = Prompt::parse(&body).unwrap();
        source.count(&prompt, from, boundaries, &|| true).unwrap()
    }

    #[test]
    fn images_add_to_the_prefixes_that_hold_them() {
        let all = [0, 1, 2, 3, 4];
        let plain = counts(ImageTokens::Ignore, None, &all);
        let tiled = counts(ImageTokens::Tiles(Tiles::default()), None, &all);
        let added = [0, 0, 765, 765, 1020];
        for ((tiled, plain), added) in tiled.prefixes.iter().zip(&plain.prefixes).zip(added) {
            assert_eq!(*tiled, plain + added);
        }
        assert_eq!(tiled.prompt, plain.prompt.map(|tokens| tokens + 1020));
        // Going on from a hit gives the same.
        for hit in 0..4u32 {
            let from = Counted {
                block: hit,
                tokens: tiled.prefixes[hit as usize],
            };
            let rest: Vec<u32> = (hit + 1..5).collect();
            let rest = counts(ImageTokens::Tiles(Tiles::default()), Some(from), &rest);
            assert_eq!(rest.prefixes, tiled.prefixes[hit as usize + 1..]);
        }
    }

    #[test]
    fn the_version_covers_the_rule() {
        let version =
            |rule: ImageTokens| rule.over(builtin(Encoding::O200kBase)).version().to_owned();
        let rules = [
            ImageTokens::Ignore,
            ImageTokens::Fixed(1),
            ImageTokens::Fixed(2),
            ImageTokens::Tiles(Tiles::default()),
            ImageTokens::Tiles(Tiles {
                base_tokens: 0,
                ..Tiles::default()
            }),
        ];
        let versions: std::collections::BTreeSet<_> = rules.into_iter().map(version).collect();
        assert_eq!(versions.len(), rules.len());
        assert_eq!(
            version(ImageTokens::Ignore),
            builtin(Encoding::O200kBase).version()
        );
    }

    /// How images of every format start.
    const HEADS: &[&[u8]] = &[
        b"",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"GIF89a",
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1\0\x20Exif\0\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"RIFF\0\0\0\0WEBPVP8X",
        b"RIFF\0\0\0\0WEBPVP8L",
    ];

    proptest! {
        /// Whatever claims to be an image does no harm.
        #[test]
        fn hostile_images_have_a_size_or_none(
            head in prop::sample::select(HEADS),
            rest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [head, &rest].concat();
            let url = format!("data:image/x;base64,{}", BASE64.encode(bytes));
            if let Some((width, height)) = size_of_data_url(&url) {
                prop_assert!(width > 0 && height > 0);
                prop_assert!(tiles(Tiles::default(), (width, height)) <= 85 + 170 * 8);
            }
        }
    }
}
