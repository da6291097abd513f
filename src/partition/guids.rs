//! Type GUIDs of GPT partitions, and what each is called.
//!
//! Sources: the UAPI group's Discoverable Partitions Specification (and systemd's `sd-gpt.h`) for Linux, the lists of
//! `sfdisk --list-types` and `sgdisk --list-types` for the others. A GUID is written as the number that its text spells.

/// What the Discoverable Partitions Specification has of each architecture, in the order of [`ROLES`].
pub(super) const ARCHITECTURES: &[(&str, [u128; 6])] = &[
    (
        "x86",
        [
            0x44479540_f297_41b2_9af7_d131d5f0458a,
            0x75250d76_8cc6_458e_bd66_bd47cc81a812,
            0xd13c5d3b_b5d1_422a_b29f_9454fdc89d76,
            0x8f461b0d_14ee_4e81_9aa9_049b6fb97abd,
            0x5996fc05_109c_48de_808b_23fa0830b676,
            0x974a71c0_de41_43c3_be5d_5c5ccd1ad2c0,
        ],
    ),
    (
        "x86-64",
        [
            0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709,
            0x8484680c_9521_48c6_9c11_b0720656f69e,
            0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5,
            0x77ff5f63_e7b6_4633_acf4_1565b864c0e6,
            0x41092b05_9fc8_4523_994f_2def0408b176,
            0xe7bb33fb_06cf_4e81_8273_e543b413e2e2,
        ],
    ),
    (
        "Alpha",
        [
            0x6523f8ae_3eb1_4e2a_a05a_18b695ae656f,
            0xe18cf08c_33ec_4c0d_8246_c6c6fb3da024,
            0xfc56d9e9_e6e5_4c06_be32_e74407ce09a5,
            0x8cce0d25_c0d0_4a44_bd87_46331bf1df67,
            0xd46495b7_a053_414f_80f7_700c99921ef8,
            0x5c6e1c76_076a_457a_a0fe_f3b4cd21ce6e,
        ],
    ),
    (
        "ARC",
        [
            0xd27f46ed_2919_4cb8_bd25_9531f3c16534,
            0x7978a683_6316_4922_bbee_38bff5a2fecc,
            0x24b2d975_0f97_4521_afa1_cd531e421b8d,
            0xfca0598c_d880_4591_8c16_4eda05c7347c,
            0x143a70ba_cbd3_4f06_919f_6c05683a78bc,
            0x94f9a9a1_9971_427a_a400_50cb297f0f35,
        ],
    ),
    (
        "ARM",
        [
            0x69dad710_2ce4_4e3c_b16c_21a1d49abed3,
            0x7d0359a3_02b3_4f0a_865c_654403e70625,
            0x7386cdf2_203c_47a9_a498_f2ecce45a2d6,
            0xc215d751_7bcd_4649_be90_6627490a4c05,
            0x42b0455f_eb11_491d_98d3_56145ba9d037,
            0xd7ff812f_37d1_4902_a810_d76ba57b975a,
        ],
    ),
    (
        "ARM64",
        [
            0xb921b045_1df0_41c3_af44_4c6f280d3fae,
            0xb0e01050_ee5f_4390_949a_9101b17104e9,
            0xdf3300ce_d69f_4c92_978c_9bfb0f38d820,
            0x6e11a4e7_fbca_4ded_b9e9_e1a512bb664e,
            0x6db69de6_29f4_4758_a7a5_962190f00ce3,
            0xc23ce4ff_44bd_4b00_b2d4_b41b3419e02a,
        ],
    ),
    (
        "IA-64",
        [
            0x993d8d3d_f80e_4225_855a_9daf8ed7ea97,
            0x4301d2a6_4e3b_4b2a_bb94_9e0b2c4225ea,
            0x86ed10d5_b607_45bb_8957_d350f23d0571,
            0x6a491e03_3be7_4545_8e38_83320e0ea880,
            0xe98b36ee_32ba_4882_9b12_0ce14655f46a,
            0x8de58bc2_2a43_460d_b14e_a76e4a17b47f,
        ],
    ),
    (
        "LoongArch64",
        [
            0x77055800_792c_4f94_b39a_98c91b762bb6,
            0xe611c702_575c_4cbe_9a46_434fa0bf7e3f,
            0xf3393b22_e9af_4613_a948_9d3bfbd0c535,
            0xf46b2c26_59ae_48f0_9106_c50ed47f673d,
            0x5afb67eb_ecc8_4f85_ae8e_ac1e7c50e7d0,
            0xb024f315_d330_444c_8461_44bbde524e99,
        ],
    ),
    (
        "MIPS LE",
        [
            0x37c58c8a_d913_4156_a25f_48b1b64e07f0,
            0x0f4868e9_9952_4706_979f_3ed3a473e947,
            0xd7d150d2_2a04_4a33_8f12_16651205ff7b,
            0x46b98d8d_b55c_4e8f_aab3_37fca7f80752,
            0xc919cc1f_4456_4eff_918c_f75e94525ca5,
            0x3e23ca0b_a4bc_4b4e_8087_5ab6a26aa8a9,
        ],
    ),
    (
        "MIPS64 LE",
        [
            0x700bda43_7a34_4507_b179_eeb93d7a7ca3,
            0xc97c1f32_ba06_40b4_9f22_236061b08aa8,
            0x16b417f8_3e06_4f57_8dd2_9b5232f41aa6,
            0x3c3d61fe_b5f3_414d_bb71_8739a694a4ef,
            0x904e58ef_5c65_4a31_9c57_6af5fc7c5de7,
            0xf2c2c7ee_adcc_4351_b5c6_ee9816b66e16,
        ],
    ),
    (
        "PowerPC",
        [
            0x1de3f1ef_fa98_47b5_8dcd_4a860a654d78,
            0x7d14fec5_cc71_415d_9d6c_06bf0b3c3eaf,
            0x98cfe649_1588_46dc_b2f0_add147424925,
            0xdf765d00_270e_49e5_bc75_f47bb2118b09,
            0x1b31b5aa_add9_463a_b2ed_bd467fc857e7,
            0x7007891d_d371_4a80_86a4_5cb875b9302e,
        ],
    ),
    (
        "PowerPC64",
        [
            0x912ade1d_a839_4913_8964_a10eee08fbd2,
            0x2c9739e2_f068_46b3_9fd0_01c5a9afbcca,
            0x9225a9a3_3c19_4d89_b4f6_eeff88f17631,
            0xbdb528a5_a259_475f_a87d_da53fa736a07,
            0xf5e2c20c_45b2_4ffa_bce9_2a60737e1aaf,
            0x0b888863_d7f8_4d9e_9766_239fce4d58af,
        ],
    ),
    (
        "PowerPC64 LE",
        [
            0xc31c45e6_3f39_412e_80fb_4809c4980599,
            0x15bb03af_77e7_4d4a_b12b_c0d084f7491c,
            0x906bd944_4589_4aae_a4e4_dd983917446a,
            0xee2b9983_21e8_4153_86d9_b6901a54d1ce,
            0xd4a236e7_e873_4c07_bf1d_bf6cf7f1c3c6,
            0xc8bfbd1e_268e_4521_8bba_bf314c399557,
        ],
    ),
    (
        "RISC-V 32",
        [
            0x60d5a7fe_8e7d_435c_b714_3dd8162144e1,
            0xb933fb22_5c3f_4f91_af90_e2bb0fa50702,
            0xae0253be_1167_4007_ac68_43926c14c5de,
            0xcb1ee4e3_8cd0_4136_a0a4_aa61a32e8730,
            0x3a112a75_8729_4380_b4cf_764d79934448,
            0xc3836a13_3137_45ba_b583_b16c50fe5eb4,
        ],
    ),
    (
        "RISC-V 64",
        [
            0x72ec70a6_cf74_40e6_bd49_4bda08e8f224,
            0xbeaec34b_8442_439b_a40b_984381ed097d,
            0xb6ed5582_440b_4209_b8da_5ff7c419ea3d,
            0x8f1056be_9b05_47c4_81d6_be53128e5b54,
            0xefe0f087_ea8d_4469_821a_4c2a96a8386a,
            0xd2f9000a_7a18_453f_b5cd_4d32f77a7b32,
        ],
    ),
    (
        "s390",
        [
            0x08a7acea_624c_4a20_91e8_6e0fa67d23f9,
            0xcd0f869b_d0fb_4ca0_b141_9ea87cc78d66,
            0x7ac63b47_b25c_463b_8df8_b4a94e6c90e1,
            0xb663c618_e7bc_4d6d_90aa_11b756bb1797,
            0x3482388e_4254_435a_a241_766a065f9960,
            0x17440e4f_a8d0_467f_a46e_3912ae6ef2c5,
        ],
    ),
    (
        "s390x",
        [
            0x5eead9a9_fe09_4a1e_a1d7_520d00531306,
            0x8a4f5770_50aa_4ed3_874a_99b710db6fea,
            0xb325bfbe_c7be_4ab8_8357_139e652d2f6b,
            0x31741cc4_1a2a_4111_a581_e00b447d2d06,
            0xc80187a5_73a3_491a_901a_017c3fa953e9,
            0x3f324816_667b_46ae_86ee_9b0c0c6c11b4,
        ],
    ),
    (
        "TILE-Gx",
        [
            0xc50cdd70_3862_4cc3_90e1_809a8c93ee2c,
            0x55497029_c7c1_44cc_aa39_815ed1558630,
            0x966061ec_28e4_4b2e_b4a5_1f0a825a1d84,
            0x2fb4bf56_07fa_42da_8132_6b139f2026ae,
            0xb3671439_97b0_4a53_90f7_2d5a8f3ad47b,
            0x4ede75e2_6ccc_4cc8_b9c7_70334b087510,
        ],
    ),
    (
        "PA-RISC",
        [
            0x1aacdb3b_5444_4138_bd9e_e5c2239b2346,
            0xdc4a4480_6917_4262_a4ec_db9384949f25,
            0xd212a430_fbc5_49f9_a983_a7feef2b8d0e,
            0x5843d618_ec37_48d7_9f12_cea8e08768b2,
            0x15de6170_65d3_431c_916e_b0dcd8393f25,
            0x450dd7d1_3224_45ec_9cf2_a43a346d71ee,
        ],
    ),
];

/// What a partition of one architecture is for, and whether it holds hashes of another or their signature.
pub(super) const ROLES: [(&str, bool); 6] = [
    ("root", false),
    ("usr", false),
    ("root verity", true),
    ("usr verity", true),
    ("root verity signature", true),
    ("usr verity signature", true),
];

pub(super) const EFI_SYSTEM: u128 = 0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b;
pub(super) const BIOS_BOOT: u128 = 0x21686148_6449_6e6f_744e_656564454649;
/// Partitions of Windows' Logical Disk Manager.
pub(super) const LDM_METADATA: u128 = 0x5808c8aa_7e8f_42e0_85d2_e1e90434cfb3;
pub(super) const LDM_DATA: u128 = 0xaf9b60a0_1431_4f62_bc68_3311714a69ad;
/// Flatcar and CoreOS: an image whose dm-verity hashes stand behind the filesystem, without a header.
pub(super) const FLATCAR_USR: u128 = 0x5dfbf5f4_2848_4bac_aa5e_0d9a20b745a6;
/// ChromeOS: as above; the root hash is on the kernel's command line.
pub(super) const CHROMEOS_ROOT: u128 = 0x3cb8e202_3b7e_47dd_8a3c_7ff2a13cfcec;

/// All others.
pub(super) const NAMES: &[(u128, &str)] = &[
    (0x21686148_6449_6e6f_744e_656564454649, "BIOS boot"),
    (0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b, "EFI system"),
    (0x0657fd6d_a4ab_43c4_84e5_0933c84b4f4f, "Linux swap"),
    (0x0fc63daf_8483_4772_8e79_3d69d8477de4, "Linux filesystem"),
    (0xa19d880f_05fc_4d3b_a006_743f0f84911e, "Linux RAID"),
    (0xe6d6d379_f507_44c2_a23c_238f2a3df928, "Linux LVM"),
    (
        0xebd0a0a2_b9e5_4433_87c0_68b6b72699c7,
        "Microsoft basic data",
    ),
    (0x48465300_0000_11aa_aa11_00306543ecac, "Apple HFS"),
    (0x7c3457ef_0000_11aa_aa11_00306543ecac, "Apple APFS"),
    (0x55465300_0000_11aa_aa11_00306543ecac, "Apple UFS"),
    (0x52414944_0000_11aa_aa11_00306543ecac, "Apple RAID"),
    (0x52414944_5f4f_11aa_aa11_00306543ecac, "Apple RAID offline"),
    (0x426f6f74_0000_11aa_aa11_00306543ecac, "Apple boot"),
    (0x4c616265_6c00_11aa_aa11_00306543ecac, "Apple label"),
    (0x5265636f_7665_11aa_aa11_00306543ecac, "Apple TV recovery"),
    (0x53746f72_6167_11aa_aa11_00306543ecac, "Apple Core Storage"),
    (0x69646961_6700_11aa_aa11_00306543ecac, "Apple Silicon boot"),
    (
        0x52637672_7900_11aa_aa11_00306543ecac,
        "Apple Silicon recovery",
    ),
    (0x45b0969e_9b03_4f30_b4c6_b4b80ceff106, "Ceph journal"),
    (
        0x45b0969e_9b03_4f30_b4c6_5ec00ceff106,
        "Ceph encrypted journal",
    ),
    (0x4fbd7e29_9d25_41b8_afd0_062c0ceff05d, "Ceph OSD"),
    (0x4fbd7e29_9d25_41b8_afd0_5ec00ceff05d, "Ceph encrypted OSD"),
    (
        0x89c57f98_2fe5_4dc0_89c1_f3ad0ceff2be,
        "Ceph disk in creation",
    ),
    (
        0x89c57f98_2fe5_4dc0_89c1_5ec00ceff2be,
        "Ceph encrypted disk in creation",
    ),
    (0xfe3a2a5d_4f32_41a7_b725_accc3285a309, "ChromeOS kernel"),
    (0x3cb8e202_3b7e_47dd_8a3c_7ff2a13cfcec, "ChromeOS root"),
    (0x2e0a753d_9e48_43b0_8337_b15192cb1b5e, "ChromeOS reserved"),
    (0xcab6e88e_abf3_4102_a07a_d4bb9be3c1d3, "ChromeOS firmware"),
    (0x09845860_705f_4bb5_b16c_8a8a099caf52, "ChromeOS miniOS"),
    (
        0x3f0f8318_f146_4e6b_8222_c28c8f02e0d5,
        "ChromeOS hibernation",
    ),
    (0x5dfbf5f4_2848_4bac_aa5e_0d9a20b745a6, "Flatcar usr"),
    (0x3884dd41_8582_4404_b9a8_e9b84f2df50e, "Flatcar root"),
    (0xc95dc21a_df0e_4340_8d7b_26cbfa9a03e0, "Flatcar OEM"),
    (
        0xbe9067b9_ea49_4f15_b4f6_f36f8c9e1818,
        "Flatcar root on RAID",
    ),
    (0x516e7cb4_6ecf_11d6_8ff8_00022d09712b, "FreeBSD data"),
    (0x83bd6b9d_7f41_11dc_be0b_001560b84f0f, "FreeBSD boot"),
    (0x516e7cb5_6ecf_11d6_8ff8_00022d09712b, "FreeBSD swap"),
    (0x516e7cb6_6ecf_11d6_8ff8_00022d09712b, "FreeBSD UFS"),
    (0x516e7cba_6ecf_11d6_8ff8_00022d09712b, "FreeBSD ZFS"),
    (0x516e7cb8_6ecf_11d6_8ff8_00022d09712b, "FreeBSD Vinum"),
    (0x74ba7dd9_a689_11e1_bd04_00e081286acf, "FreeBSD nandfs"),
    (0x42465331_3ba3_10f1_802a_4861696b7521, "Haiku BFS"),
    (0x5b193300_fc78_40cd_8002_e86c45580b47, "HiFive FSBL"),
    (0x2e54b353_1271_4842_806f_e436d6af6985, "HiFive BBL"),
    (0x75894c1e_3aeb_11d3_b7c1_7b03a0000000, "HP-UX data"),
    (0xe2a1e728_32e3_11d6_a682_7b03a0000000, "HP-UX service"),
    (0x37affc90_ef7d_4e96_91c3_2d7ae055b174, "IBM GPFS"),
    (0xd3bfe2de_3daf_11df_ba40_e3a556d89593, "Intel Rapid Start"),
    (0xbfbfafe7_a34f_448a_9a5b_6213eb736c22, "Lenovo boot"),
    (0x3b8f8425_20e0_4f3b_907f_1a25a76f98e8, "Linux server data"),
    (0x8da63339_0007_60c0_c436_083ac8230908, "Linux reserved"),
    (0x933ac7e1_2eb4_4f13_b844_0e14e2aef915, "Linux home"),
    (
        0x4d21b016_b534_45c2_a9fb_5c16e091fd2d,
        "Linux variable data",
    ),
    (
        0x7ec6f557_3bc5_4aca_b293_16ef5df639d1,
        "Linux temporary data",
    ),
    (
        0xbc13c2ff_59e6_4262_a352_b275fd6f7172,
        "Linux extended boot",
    ),
    (
        0x773f91ef_66d4_49b5_bd83_d683bf40ad16,
        "Linux home of a user",
    ),
    (0x7ffec5c9_2d00_49b7_8941_3ea10a5586b7, "Linux dm-crypt"),
    (0xca7d7ccb_63ed_4c53_861c_1742536059cc, "Linux LUKS"),
    (
        0x6828311a_ba55_42a4_bcde_a89bb5edecae,
        "Marvell Armada boot",
    ),
    (
        0x024dee41_33e7_11d3_9d69_0008c781f39f,
        "MBR partition scheme",
    ),
    (0xe3c9e316_0b5c_4db8_817d_f92df00215ae, "Microsoft reserved"),
    (LDM_METADATA, "Microsoft LDM metadata"),
    (LDM_DATA, "Microsoft LDM data"),
    (
        0xe75caf8f_f680_4cee_afa3_b001e56efc2d,
        "Microsoft Storage Spaces",
    ),
    (
        0x558d43c5_a1ac_43c0_aac8_d1472b2923d1,
        "Microsoft storage replica",
    ),
    (0x85d5e45a_237c_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD data"),
    (0x85d5e45e_237c_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD boot"),
    (0x85d5e45b_237c_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD swap"),
    (0x0394ef8b_237e_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD UFS"),
    (0x85d5e45d_237c_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD ZFS"),
    (0x85d5e45c_237c_11e1_b4b3_e89a8f7fc3a7, "MidnightBSD Vinum"),
    (0x49f48d32_b10e_11dc_b99b_0019d1879648, "NetBSD swap"),
    (0x49f48d5a_b10e_11dc_b99b_0019d1879648, "NetBSD FFS"),
    (0x49f48d82_b10e_11dc_b99b_0019d1879648, "NetBSD LFS"),
    (
        0x2db519c4_b10f_11dc_b99b_0019d1879648,
        "NetBSD concatenated",
    ),
    (0x2db519ec_b10f_11dc_b99b_0019d1879648, "NetBSD encrypted"),
    (0x49f48daa_b10e_11dc_b99b_0019d1879648, "NetBSD RAID"),
    (0x7412f7d5_a156_4b13_81dc_867174929325, "ONIE boot"),
    (0xd4e6e2cd_4469_46f3_b5cb_1bff57afc149, "ONIE config"),
    (0x824cc7a0_36a8_11e3_890a_952519ad3f61, "OpenBSD data"),
    (0xc91818f9_8025_47af_89d2_f030d7000c2c, "Plan 9"),
    (0x9e1a2d38_c612_4316_aa26_8b49521e5a8b, "PowerPC PReP boot"),
    (0xcef5a9ad_73bc_4601_89f3_cdeeeee321a1, "QNX6"),
    (0x6a82cb45_1dd2_11b2_99a6_080020736631, "Solaris boot"),
    (0x6a85cf4d_1dd2_11b2_99a6_080020736631, "Solaris root"),
    (
        0x6a898cc3_1dd2_11b2_99a6_080020736631,
        "Solaris usr or Apple ZFS",
    ),
    (0x6a87c46f_1dd2_11b2_99a6_080020736631, "Solaris swap"),
    (0x6a8b642b_1dd2_11b2_99a6_080020736631, "Solaris backup"),
    (0x6a8ef2e9_1dd2_11b2_99a6_080020736631, "Solaris var"),
    (0x6a90ba39_1dd2_11b2_99a6_080020736631, "Solaris home"),
    (
        0x6a9283a5_1dd2_11b2_99a6_080020736631,
        "Solaris alternate sector",
    ),
    (0x6a945a3b_1dd2_11b2_99a6_080020736631, "Solaris reserved 1"),
    (0x6a9630d1_1dd2_11b2_99a6_080020736631, "Solaris reserved 2"),
    (0x6a980767_1dd2_11b2_99a6_080020736631, "Solaris reserved 3"),
    (0x6a96237f_1dd2_11b2_99a6_080020736631, "Solaris reserved 4"),
    (0x6a8d2ac7_1dd2_11b2_99a6_080020736631, "Solaris reserved 5"),
    (0xf4019732_066e_4e12_8273_346c5641494f, "Sony boot"),
    (0x3de21764_95bd_54bd_a5c3_4abe786f38a8, "U-Boot"),
    (0x8c8f8eff_ac95_4770_814a_21994f2dbc8f, "VeraCrypt data"),
    (0xaa31e02a_400f_11db_9590_000c2911d1b8, "VMware VMFS"),
    (0x9d275380_40ad_11db_bf97_000c2911d1b8, "VMware diagnostic"),
    (0x381cfccc_7288_11e0_92ee_000c2911d0b2, "VMware Virtual SAN"),
    (0x77719a0c_a4a0_11e3_a47e_000c29745a24, "VMware Virsto"),
    (0x9198effc_31c0_11db_8f78_000c2911d1b8, "VMware reserved"),
    (0xde94bba4_06d1_4d40_a16a_bfd50179d6ac, "Windows recovery"),
];
