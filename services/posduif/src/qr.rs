//! A text in, a QR code for the terminal out.

use anyhow::Context;
use qrcode::{QrCode, render::unicode::Dense1x2};

/// Two rows of modules per line; dark modules are left blank, so that it reads on a dark terminal.
pub fn render(text: &str) -> anyhow::Result<String> {
    let code = QrCode::new(text).context("the text does not fit into a QR code")?;
    Ok(code.render::<Dense1x2>().dark_color(Dense1x2::Dark).light_color(Dense1x2::Light).build())
}
