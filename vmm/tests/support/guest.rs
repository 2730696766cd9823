//! Tiny PVH guests: an ELF64 file with Xen's entry note and a few bytes of 32-bit code.

/// What a guest does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guest {
    /// Prints `OK` and halts; never listens to the power button.
    Ok,
    /// Prints `OK` and powers off.
    Off,
    /// Prints `R` and resets: a reboot loop.
    Reset,
    /// Runs in circles.
    Spin,
    /// Floods the serial port.
    Spam,
    /// Triple-faults: a reboot loop.
    TripleFault,
}

const LOAD: u32 = 0x10_0000;

fn code(guest: Guest) -> Vec<u8> {
    let print = |text: &str| -> Vec<u8> {
        let mut code = vec![0x66, 0xba, 0xf8, 0x03]; // mov dx, 0x3f8
        for byte in text.bytes() {
            code.extend([0xb0, byte, 0xee]); // mov al, byte; out dx, al
        }
        code
    };
    let halt = [0xfa, 0xf4, 0xeb, 0xfd]; // cli; hlt; jmp -3
    match guest {
        Guest::Ok => [&print("OK\n")[..], &halt].concat(),
        // mov dx, 0x600; mov al, 0x34; out dx, al: ACPI sleep control, S5
        Guest::Off => [
            &print("OK\n")[..],
            &[0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee],
            &halt,
        ]
        .concat(),
        // mov al, 0xfe; out 0x64, al: the keyboard controller's reset
        Guest::Reset => [&print("R\n")[..], &[0xb0, 0xfe, 0xe6, 0x64], &halt].concat(),
        Guest::Spin => [&print("S\n")[..], &[0xeb, 0xfe]].concat(),
        Guest::Spam => [&print("")[..], &[0xb0, b'x', 0xee, 0xeb, 0xfb]].concat(),
        // lidt [table]; mov ax, 0xfff8; mov ds, ax: a segment beyond its table, which faults, and
        // an empty interrupt table behind the code, so that the fault does as well
        Guest::TripleFault => {
            let table = (LOAD + 20).to_le_bytes();
            let load = [0x66, 0xb8, 0xf8, 0xff, 0x8e, 0xd8];
            [&[0x0f, 0x01, 0x1d][..], &table, &load, &[0; 32]].concat()
        }
    }
}

/// The guest as a file that Cloud Hypervisor takes as a kernel.
pub(crate) fn elf(guest: Guest) -> Vec<u8> {
    let code = code(guest);
    let (note_at, code_at) = (0x200usize, 0x1000usize);
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend(2u16.to_le_bytes()); // executable
    elf.extend(62u16.to_le_bytes()); // x86-64
    elf.extend(1u32.to_le_bytes());
    elf.extend(u64::from(LOAD).to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend(0u64.to_le_bytes());
    elf.extend(0u32.to_le_bytes());
    for half in [64u16, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let mut header = |kind: u32, flags: u32, at: usize, address: u64, size: u64, align: u64| {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        for word in [at as u64, address, address, size, size, align] {
            elf.extend(word.to_le_bytes());
        }
    };
    let note_size = 12 + 4 + 8;
    header(1, 7, code_at, LOAD.into(), code.len() as u64, 0x1000); // PT_LOAD
    header(4, 4, note_at, 0, note_size, 4); // PT_NOTE
    elf.resize(note_at, 0);
    for word in [4u32, 8, 18] {
        elf.extend(word.to_le_bytes()); // name size, data size, XEN_ELFNOTE_PHYS32_ENTRY
    }
    elf.extend(b"Xen\0");
    elf.extend(u64::from(LOAD).to_le_bytes());
    elf.resize(code_at, 0);
    elf.extend(code);
    elf
}
