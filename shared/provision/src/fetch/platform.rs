//! The machine in, the names that npm and pip have for it out.

use std::env::consts::{ARCH, OS};

use super::Reason;

/// A kind of machine for which packages are pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Platform {
    LinuxX64,
    LinuxArm64,
    DarwinX64,
    DarwinArm64,
}

impl Platform {
    pub(super) fn here() -> Result<Self, Reason> {
        match (OS, ARCH) {
            ("linux", "x86_64") => Ok(Self::LinuxX64),
            ("linux", "aarch64") => Ok(Self::LinuxArm64),
            ("macos", "x86_64") => Ok(Self::DarwinX64),
            ("macos", "aarch64") => Ok(Self::DarwinArm64),
            _ => Err(format!("no package is known for {OS} on {ARCH}")),
        }
    }

    pub(super) fn npm(self) -> &'static str {
        match self {
            Self::LinuxX64 => "linux-x64",
            Self::LinuxArm64 => "linux-arm64",
            Self::DarwinX64 => "darwin-x64",
            Self::DarwinArm64 => "darwin-arm64",
        }
    }

    pub(super) fn pip(self) -> &'static str {
        match self {
            Self::LinuxX64 => "manylinux_2_28_x86_64",
            Self::LinuxArm64 => "manylinux_2_28_aarch64",
            Self::DarwinX64 => "macosx_11_0_x86_64",
            Self::DarwinArm64 => "macosx_11_0_arm64",
        }
    }
}
