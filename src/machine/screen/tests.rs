use super::*;

#[test]
fn a_ppm_becomes_a_png_of_the_same_size() {
    let mut ppm = b"P6\n3 2\n255\n".to_vec();
    ppm.extend((0..18).map(|value| value * 10));
    let png = png_of_ppm(&ppm).unwrap();
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (3, 2));
    assert_eq!(pixels, &ppm[11..]);
}

#[test]
fn what_is_no_picture_is_refused() {
    for ppm in [
        "",
        "P6",
        "P6 1 1 255",
        "P6 1 1 255\n12",
        "P5 1 1 255\n123",
        "P6 0 0 255\n",
        "P6 4294967295 4294967295 255\n",
        "P6 99999999999 1 255\nx",
        "P6 1 1 65535\n123",
    ] {
        assert!(png_of_ppm(ppm.as_bytes()).is_err(), "{ppm:?}");
    }
}

#[test]
fn text_is_told_from_other_memory() {
    let mut cells = [b' ', 7].repeat(COLUMNS * LINES);
    assert_eq!(text_of(&cells), [""; 0]);
    for (at, letter) in b"No bootable device.".iter().enumerate() {
        cells[(COLUMNS * 3 + at) * 2] = *letter;
    }
    assert_eq!(text_of(&cells), ["", "", "", "No bootable device."]);
    let noise: Vec<u8> = (0..COLUMNS * LINES * 2)
        .map(|at| (at * 7 % 251) as u8)
        .collect();
    assert_eq!(text_of(&noise), [""; 0]);
    assert_eq!(text_of(&[]), [""; 0]);
}

#[test]
fn what_is_shown_begins_anywhere_in_text_memory() {
    let mut memory = vec![0; TEXT_SIZE];
    let mut put = |at: usize, text: &str| {
        for (number, byte) in text.bytes().enumerate() {
            memory[(at + number) % (TEXT_SIZE / 2) * 2] = byte;
        }
    };
    put(100, "old words");
    put(80 * 30 + 2, "login:");
    put(TEXT_SIZE / 2 - 3, "wrapped");
    assert!(memory_has(&memory, "old words") && memory_has(&memory, "login:"));
    assert!(!memory_has(&memory, "new") && !memory_has(&memory, ""));
    assert_eq!(lines_from(&memory, 80 * 29, 80), ["", "  login:"]);
    assert_eq!(lines_from(&memory, TEXT_SIZE / 2 - 3, 80)[0], "wrapped");
    assert!(lines_from(&[], 7, 80).is_empty());
}
