"""Instruction sets: what the compiler has made of cext/isa holds no instruction beyond the set that the file is for.

The encoding is read from the bytes, because an AVX-512VL instruction on xmm0-15 looks like an AVX one in text.
"""

import bisect
import contextlib
import functools
import os
import platform
import re
import runpy
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

import chaos
import chaos._core

TREE = Path(__file__).resolve().parent.parent
if not (TREE / "setup.py").is_file() or not (TREE / "cext").is_dir():
    pytest.skip("the source tree is not beside the tests", allow_module_level=True)

SETUP = runpy.run_path(str(TREE / "setup.py"), run_name="setup_of_chaos")
COMPILER = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
FLAGS = [*SETUP["BASELINE"], "-fPIC", "-DNDEBUG", f"-I{TREE / 'cext'}", f"-I{TREE / 'build/generated'}"]
BASE = [
    "registry.c",
    "isa/generic.c",
    *(
        f"{p.parent.name}/{p.name}"
        for room in ("bf16", "engine", "replay", "sync")
        for p in sorted((TREE / "cext" / room).glob("*.c"))
        if p.name != "amx.c"
    ),
]
needs_x86 = pytest.mark.skipif(
    platform.machine() != "x86_64" or not shutil.which(COMPILER) or not shutil.which("objdump"),
    reason="needs an x86-64 machine with a compiler and objdump (binutils)",
)


# ---- AVX-512F, after "CPUID feature flag" in Intel's Software Developer's Manual, volume 2 ----


def spell(text):
    """All words of a text in which {a,b} stands for a or b, as in a shell."""

    def expand(word):
        if (match := re.search(r"\{([^{}]*)\}", word)) is None:
            return [word]
        return [w for part in match[1].split(",") for w in expand(word[: match.start()] + part + word[match.end() :])]

    return {w for word in text.split() for w in expand(word)}


# On 512 bits (of the conversions with a narrow side: by their wide side).
F_PACKED = spell("""
    v{add,sub,mul,div,min,max,sqrt,scalef,getexp,getmant,fixupimm,rndscale,rcp14,rsqrt14,cmp}{ps,pd}
    vf{,n}m{add,sub}{132,213,231}{ps,pd} vfmaddsub{132,213,231}{ps,pd} vfmsubadd{132,213,231}{ps,pd}
    vp{add,sub,abs,and,andn,or,xor,ternlog,testm,testnm,cmp,cmpu,blendm,compress,expand}{d,q}
    vp{max,min}{s,u}{d,q} vpmul{ld,dq,udq} vp{sll,srl,sra,sllv,srlv,srav,rol,ror,rolv,rorv}{d,q}
    vmova{ps,pd} vmovu{ps,pd} vmovdq{a,u}{32,64} vmovnt{ps,pd,dq,dqa} vmov{ddup,shdup,sldup}
    v{shuf,permil,perm,blendm,compress,expand,unpckh,unpckl}{ps,pd} vpshufd vshuf{f,i}{32x4,64x2} vperm{d,q}
    vpermi2{d,q,ps,pd} vpermt2{d,q,ps,pd} vpunpck{h,l}{dq,qdq} valign{d,q}
    vbroadcasts{s,d} vbroadcast{f,i}{32x4,64x4} vpbroadcast{d,q} v{extract,insert}{f,i}{32x4,64x4}
    v{,p}{gather,scatter}{d,q}{d,q,ps,pd}
    vcvt{,u}dq2{ps,pd} vcvt{,t}{ps,pd}2{,u}dq vcvtpd2ps vcvtps2pd vcvtps2ph vcvtph2ps
    vpmov{,s,us}{db,dw,qb,qw,qd} vpmov{sx,zx}{bd,bq,wd,wq,dq}
""")

# On one element, or on 128 bits with EVEX in AVX-512F itself.
F_SCALAR = spell("""
    v{add,sub,mul,div,min,max,sqrt,scalef,getexp,getmant,fixupimm,rndscale,rcp14,rsqrt14,cmp}{ss,sd}
    vf{,n}m{add,sub}{132,213,231}{ss,sd} v{,u}comis{s,d}
    vmov{ss,sd,d,q,hlps,lhps,hps,hpd,lps,lpd} vinsertps vextractps
    vcvt{,t}s{s,d}2{,u}si{,l,q} vcvt{,u}si2s{s,d}{,l,q} vcvtss2sd vcvtsd2ss
""")

# On 16-bit masks; kadd and ktest are AVX-512DQ even for 16 bits.
F_MASKS = spell("k{and,andn,mov,not,or,ortest,shiftl,shiftr,xnor,xor}w kunpckbw")

# VEX-encoded sets beyond AVX, AVX2 and FMA.
VEX_OTHERS = re.compile(r"vcvt(ph2ps|ps2ph|ne).*|v(bcst|pdp|pmadd52|gf2p8|aes|pclmul|sha|sm[34]).*")
# Those of SSE3 to SSE4.2, POPCNT among them, come with AVX.
LATER_SSE = spell("""
    popcnt crc32 ptest lddqu movddup mov{s,l}hdup h{add,sub}p{s,d} addsubp{s,d} round{s,p}{s,d} blend{,v}p{s,d} dpp{s,d}
    pshufb pblendw pblendvb palignr packusdw insertps extractps pabs{b,w,d} psign{b,w,d} ph{add,sub}{w,d,sw} pmaddubsw
    pmulhrsw pmul{ld,dq} p{max,min}{sb,sd,uw,ud} pcmp{eq,gt}q pextr{b,d,q} pinsr{b,d,q} pmov{s,z}x{bw,bd,bq,wd,wq,dq}
""")
LEGACY_OTHERS = spell("lzcnt movbe {rd,wr}{fs,gs}base adcx adox rdrand rdseed sha1{msg1,msg2,nexte,rnds4} xbegin")


# ---- reading objdump ----


@dataclass
class Instruction:
    """One line of a disassembly. `encoding` is "evex", "vex" or "legacy"; `bits` the vector length of the former."""

    function: str
    code: bytes
    mnemonic: str
    operands: str

    def __post_init__(self):
        code = self.code.lstrip(b"\x26\x2e\x36\x3e\x64\x65\x67")  # segments and address size may precede VEX and EVEX
        self.encoding = {0x62: "evex", 0xC4: "vex", 0xC5: "vex", 0x8F: "xop"}.get(code[0] if code else 0, "legacy")
        if code[:1] == b"\x8f" and (code[1] & 0x1F) < 8:  # pop
            self.encoding = "legacy"
        self.bits = None
        if self.encoding == "evex":
            rounds = code[3] & 0x10 and code[5] >= 0xC0  # on registers, that bit makes the length a rounding mode
            self.bits = 512 if rounds else 128 << (code[3] >> 5 & 3)

    def __str__(self):
        return f"{self.function}: {self.code.hex(' ')}  {self.mnemonic} {self.operands}"


def disassembled(path):
    """(address, instruction) of all that an object file holds."""
    # The width keeps the bytes of an instruction on one line.
    text = subprocess.run(
        ["objdump", "-d", "-w", "--insn-width=15", path],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "LC_ALL": "C"},
    ).stdout
    found, function = [], "?"
    for line in text.splitlines():
        if match := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = match[1]
        elif match := re.match(r"\s*([0-9a-f]+):\t((?:[0-9a-f]{2} )+)\s*\t(.*)$", line):
            words = match[3].split("#")[0].split(None, 1)
            # Prefixes are words of their own, and so are hints such as {evex}.
            while len(words) == 2 and (
                words[0] in ("rep", "repz", "repnz", "lock", "bnd", "notrack", "data16", "cs", "ds")
                or words[0].startswith("{")
            ):
                words = words[1].split(None, 1)
            code = bytes.fromhex(match[2])
            found.append((int(match[1], 16), Instruction(function, code, words[0] if words else "", "".join(words[1:]))))
    assert found, f"objdump shows no instructions in {path}"
    return found


def disassemble(path):
    return [instruction for _, instruction in disassembled(path)]


def plain(mnemonic):
    """A mnemonic without what an assembler adds to it: the predicate of a comparison, the length of an operand."""
    if match := re.fullmatch(r"v(p?)cmp(?:[a-z_]*?)(u?)(ss|sd|ps|pd|[bwdq])", mnemonic):
        return f"v{match[1]}cmp{match[2] if match[1] else ''}{match[3]}"
    return re.sub(r"(?<=2ps|2dq|2pd)[xyz]$|(?<=udq)[xyz]$", "", mnemonic)


def beyond_avx512f(instruction):
    """Why a processor that knows AVX-512F, AVX2 and FMA alone would not run the instruction; None if it would."""
    name, evex = plain(instruction.mnemonic), instruction.encoding == "evex"
    if instruction.mnemonic == "(bad)":
        return "unknown to objdump"
    if evex and name in F_SCALAR:
        return None
    if evex and instruction.bits != 512:
        return f"AVX-512VL or later ({instruction.bits} bits)"
    if evex:
        return None if name in F_PACKED else "not in AVX-512F"
    if name.startswith("k") or "%k" in instruction.operands:
        return None if name in F_MASKS else "not in AVX-512F"
    return beyond_avx2(instruction)


def beyond_avx2(instruction):
    """The same for AVX2 and FMA."""
    name = plain(instruction.mnemonic)
    if instruction.mnemonic == "(bad)":
        return "unknown to objdump"
    if instruction.encoding == "evex" or "%zmm" in instruction.operands or re.search(r"%k[0-7]", instruction.operands):
        return "AVX-512"
    # rep bsf, which every processor knows, is shown as tzcnt
    if instruction.encoding == "xop" or name in LEGACY_OTHERS:
        return "another extension"
    if instruction.encoding == "vex" and (name[0] != "v" or VEX_OTHERS.fullmatch(name)):
        return "another extension"
    return None


def beyond_sse2(instruction):
    """The same for the baseline."""
    if instruction.encoding != "legacy" or re.search(r"%[yz]mm|%k[0-7]|%xmm(1[6-9]|2\d|3[01])", instruction.operands):
        return "AVX"
    if instruction.mnemonic in LATER_SSE:
        return "SSE3 or later"
    return beyond_avx2(instruction)


@pytest.fixture(scope="module")
def core(tmp_path_factory):
    """core(file, *flags): the object of a file of the core; compiled once."""
    with contextlib.chdir(TREE):
        SETUP["write_lists"]()
    return functools.cache(lambda file, *flags: compiled(TREE / "cext" / file, tmp_path_factory.mktemp("core"), *flags))


def compiled(source, folder, *flags):
    """The object file of a C file, or of C text."""
    path = Path(source)
    if "\n" in str(source):
        path = folder / "snippet.c"
        path.write_text(source)
    out = folder / f"{path.parent.name}-{path.stem}.o"
    subprocess.run([COMPILER, *FLAGS, *flags, "-c", path, "-o", out], check=True)
    return out


def offences(instructions, judge):
    """What the judge says of the instructions; of those that are alike once."""
    alike = {(i.code, i.mnemonic, i.operands): i for i in instructions}
    return [f"{why}: {i}" for i in alike.values() if (why := judge(i))]


VARIANTS = {"avx2.c": beyond_avx2, "avx512.c": beyond_avx512f}
APART = (*VARIANTS, "amx.c")  # the last is run only where a processor has said that it may be


# ---- the tests ----


@needs_x86
@pytest.mark.nightly
@pytest.mark.parametrize("openmp", [0, 1])
@pytest.mark.parametrize("file", BASE)
def test_the_rest_of_the_core_has_no_avx(core, file, openmp):
    flags = [f"-DCHAOS_OPENMP={openmp}", *(SETUP["OPENMP"] if openmp else [])]
    assert not offences(disassemble(core(file, *flags)), beyond_sse2)


@needs_x86
@pytest.mark.nightly
@pytest.mark.parametrize("file", VARIANTS)
def test_variants_keep_to_their_instruction_set(core, file):
    assert not offences(disassemble(core(f"isa/{file}")), VARIANTS[file])


def places(path, *files):
    """Where a linked file has the functions of these sources: (first, behind the last, source) of each."""
    text = subprocess.run(["readelf", "-sW", path], check=True, capture_output=True, text=True).stdout
    found, file = [], None
    for words in (line.split() for line in text.partition("'.symtab'")[2].splitlines()):
        if len(words) < 8 or words[4] != "LOCAL":
            continue
        if words[3] == "FILE":  # before the local symbols of each source
            file = words[7]
        elif words[3] == "FUNC" and file in files:
            found.append((int(words[1], 16), int(words[1], 16) + int(words[2], 0), file))
    return sorted(found)


@pytest.fixture(scope="module")
def installed():
    """The instructions of the extension as it is installed, what Cython has written among them: {source of a variant, "" for
    all others: instructions}. What a wheel brings to any processor; it was compiled with the flags of all builds."""
    if "-march=" in chaos._core.BUILD_INFO:
        pytest.skip("built for this machine alone")
    if "-fsanitize" in chaos._core.BUILD_INFO:
        pytest.skip("a sanitizer has added its own code")
    inside = places(chaos._core.__file__, *APART)
    if not inside:
        pytest.skip("the extension is stripped")
    starts, found = [first for first, _, _ in inside], {file: [] for file in ("", *APART)}
    for address, instruction in disassembled(chaos._core.__file__):
        at = bisect.bisect(starts, address) - 1
        found[inside[at][2] if at >= 0 and address < inside[at][1] else ""].append(instruction)
    return found


@needs_x86
def test_the_extension_keeps_to_the_baseline_outside_the_variants(installed):
    assert len(installed[""]) > 10000
    assert not offences(installed[""], beyond_sse2)


@needs_x86
def test_avx2_is_avx2(installed):
    assert not offences(installed["avx2.c"], beyond_avx2)
    assert sum("%ymm" in i.operands for i in installed["avx2.c"]) > 500


@needs_x86
def test_avx512_is_legal_on_knights_landing(installed):
    assert not offences(installed["avx512.c"], beyond_avx512f)
    assert sum("%zmm" in i.operands for i in installed["avx512.c"]) > 500
    assert offences(installed["avx512.c"], beyond_avx2)


@needs_x86
def test_amx_has_a_file_of_its_own(installed):
    assert sum(i.mnemonic == "tdpbf16ps" for i in installed["amx.c"]) >= 4
    assert offences(installed["amx.c"], beyond_avx512f)


BEYOND = {  # what AVX-512F does not have, by the flag that brings it
    "avx512dq": """vandps %zmm1,%zmm2,%zmm3; vandnpd (%rdi),%zmm2,%zmm3; vorps %zmm1,%zmm2,%zmm3{%k1}
        vxorps %zmm1,%zmm2,%zmm3; vxorpd (%rdi){1to8},%zmm2,%zmm3; vpmullq %zmm1,%zmm2,%zmm3; vrangeps $1,%zmm1,%zmm2,%zmm3
        vrangess $1,%xmm1,%xmm2,%xmm3; vreduceps $1,%zmm2,%zmm3; vreducesd $1,%xmm1,%xmm2,%xmm3
        vfpclassps $1,%zmm2,%k3; vfpclassss $1,%xmm2,%k3; vextractf32x8 $1,%zmm1,%ymm2; vextracti64x2 $1,%zmm1,%xmm2
        vinsertf32x8 $1,%ymm1,%zmm2,%zmm3; vinserti64x2 $1,%xmm1,%zmm2,%zmm3; vbroadcastf32x8 (%rdi),%zmm1
        vbroadcastf32x2 %xmm1,%zmm2; vbroadcasti32x8 (%rdi),%zmm1; vbroadcastf64x2 (%rdi),%zmm1; vpmovm2d %k1,%zmm1
        vpmovq2m %zmm1,%k1; vcvtps2qq %ymm1,%zmm2; vcvttpd2uqq %zmm1,%zmm2; vcvtqq2ps %zmm1,%ymm2
        vcvtuqq2pd %zmm1,%zmm2; vpextrd $1,%xmm17,%eax; vpinsrq $1,%rax,%xmm17,%xmm18; kandb %k1,%k2,%k3
        kaddw %k1,%k2,%k3; ktestw %k1,%k2; kmovb (%rdi),%k1; kortestb %k1,%k2; kshiftlb $1,%k1,%k2""",
    "avx512bw": """vpaddb %zmm1,%zmm2,%zmm3; vmovdqu8 (%rdi),%zmm1; vmovdqu16 %zmm1,(%rdi){%k1}; vpshufb %zmm1,%zmm2,%zmm3
        vpcmpltub %zmm1,%zmm2,%k1; vpcmpeqw %zmm1,%zmm2,%k1; vptestmb %zmm1,%zmm2,%k1; vpmovm2w %k1,%zmm1
        vpmovb2m %zmm1,%k1; vpsllw $1,%zmm1,%zmm2; vpslldq $1,%zmm1,%zmm2; vpackssdw %zmm1,%zmm2,%zmm3
        vpunpcklbw %zmm1,%zmm2,%zmm3; vpmovsxbw %ymm1,%zmm2; vpmovwb %zmm1,%ymm2; vpermw %zmm1,%zmm2,%zmm3
        vpbroadcastb %eax,%zmm1; vpsadbw %zmm1,%zmm2,%zmm3; vpalignr $1,%zmm1,%zmm2,%zmm3
        vdbpsadbw $1,%zmm1,%zmm2,%zmm3; vpblendmb %zmm1,%zmm2,%zmm3{%k1}; vpmaxub %zmm1,%zmm2,%zmm3
        vpextrb $1,%xmm17,%eax; vpinsrw $1,%eax,%xmm17,%xmm18; kmovd %eax,%k1; kmovq %k1,%k2; kortestd %k1,%k2
        kunpckwd %k1,%k2,%k3; kunpckdq %k1,%k2,%k3; kaddq %k1,%k2,%k3; ktestd %k1,%k2; kshiftrq $1,%k1,%k2
        kxnord %k1,%k2,%k3; knotq %k1,%k2""",
    "avx512vl": """vaddps %ymm16,%ymm1,%ymm2; vaddps %ymm1,%ymm2,%ymm3{%k1}; vaddps (%rdi){1to4},%xmm2,%xmm3
        vmovaps %xmm17,%xmm1; vmovups (%rdi),%ymm1{%k1}{z}; vmovdqu32 (%rdi),%ymm1; vmovdqa64 %xmm1,%xmm2
        vpternlogd $1,%ymm1,%ymm2,%ymm3; vprold $1,%ymm1,%ymm2; vpcmpltd %ymm1,%ymm2,%k1; vrcp14ps %xmm1,%xmm2
        vpabsq %ymm1,%ymm2
        vcompressps %ymm1,%ymm2{%k1}; vcvtps2udq %ymm1,%ymm2; vpxord %ymm1,%ymm2,%ymm3; valignd $1,%ymm1,%ymm2,%ymm3
        vextractf32x4 $1,%ymm1,%xmm2; vinserti32x4 $1,%xmm1,%ymm2,%ymm3; vpermt2ps %ymm1,%ymm2,%ymm3
        vbroadcastss %xmm20,%ymm1; vpmovdb %ymm1,%xmm2; vgatherdps (%rdi,%ymm1,4),%ymm2{%k1}
        {evex} vaddps %ymm1,%ymm2,%ymm3; fs vmovaps %xmm17,(%rdi)""",
    "others": """vpconflictd %zmm1,%zmm2; vplzcntd %zmm1,%zmm2; vpbroadcastmw2d %k1,%zmm1; vpbroadcastmb2q %k1,%zmm1
        vexp2ps %zmm1,%zmm2; vrcp28ps %zmm1,%zmm2; vrsqrt28ss %xmm1,%xmm2,%xmm3; vpdpbusd %zmm1,%zmm2,%zmm3
        vpmadd52luq %zmm1,%zmm2,%zmm3; vpermb %zmm1,%zmm2,%zmm3; vpermi2b %zmm1,%zmm2,%zmm3
        vpmultishiftqb %zmm1,%zmm2,%zmm3; vpshldvd %zmm1,%zmm2,%zmm3; vpcompressw %zmm1,%zmm2{%k1}
        vpexpandb %zmm1,%zmm2{%k1}; vpopcntd %zmm1,%zmm2; vpopcntb %zmm1,%zmm2; vpshufbitqmb %zmm1,%zmm2,%k1
        vcvtneps2bf16 %zmm1,%ymm2; vdpbf16ps %zmm1,%zmm2,%zmm3; vgf2p8mulb %zmm1,%zmm2,%zmm3; vaesenc %zmm1,%zmm2,%zmm3
        vpclmulqdq $1,%zmm1,%zmm2,%zmm3; vp2intersectd %zmm1,%zmm2,%k2; vpdpwssd %ymm1,%ymm2,%ymm3
        vcvtph2ps %xmm1,%ymm2; vcvtps2ph $1,%ymm1,%xmm2; vaesenc %ymm1,%ymm2,%ymm3; andn %eax,%ebx,%ecx
        shlx %eax,%ebx,%ecx; lzcnt %eax,%ebx; movbe (%rdi),%eax; adcx %eax,%ebx""",
}
WITHIN = {  # what it has, where the check might think otherwise
    "avx512f": """vaddps %zmm16,%zmm1,%zmm2{%k1}{z}; vaddps {rn-sae},%zmm1,%zmm2,%zmm3; vaddps {rz-sae},%zmm1,%zmm2,%zmm3
        vaddss %xmm17,%xmm1,%xmm2; vaddss {rd-sae},%xmm1,%xmm2,%xmm3{%k1}; vmovss (%rdi),%xmm1{%k1}; vmovd %eax,%xmm17
        vmovq %xmm17,%rax; vextractps $1,%xmm17,%eax; vinsertps $1,%xmm1,%xmm17,%xmm2; vmovhlps %xmm1,%xmm17,%xmm2
        vmovlps (%rdi),%xmm17,%xmm2; vcmpps $17,%zmm1,%zmm2,%k1; vcmpneq_oqps %zmm1,%zmm2,%k1
        vcmpltps {sae},%zmm1,%zmm2,%k1; vcmpss $1,%xmm1,%xmm2,%k1; vpcmpltd %zmm1,%zmm2,%k1; vpcmpud $1,%zmm1,%zmm2,%k1
        vpcmpeqq %zmm1,%zmm2,%k1; vpcmpgtd %zmm1,%zmm2,%k1; vpcmpnequq (%rdi){1to8},%zmm2,%k1
        vptestnmd %zmm1,%zmm2,%k1; vpcompressd %zmm1,(%rdi){%k1}; vgatherdps (%rdi,%zmm1,4),%zmm2{%k1}
        vpscatterqd %ymm1,(%rdi,%zmm2,4){%k1}; vcvtpd2ps %zmm1,%ymm2; vcvtps2pd %ymm1,%zmm2; vcvtps2ph $1,%zmm1,%ymm2
        vcvtph2ps %ymm1,%zmm2; vcvttps2udq %zmm1,%zmm2; vcvtudq2pd %ymm1,%zmm2; vcvtusi2ss %eax,%xmm1,%xmm2
        vcvtsi2ssl (%rdi),%xmm17,%xmm2; vcvttss2usi %xmm1,%eax; vpmovqb %zmm1,%xmm2; vpmovusdw %zmm1,%ymm2
        vpmovsxbd %xmm1,%zmm2; vpmovzxwq %xmm1,%zmm2; vbroadcastf32x4 (%rdi),%zmm1; vbroadcasti64x4 (%rdi),%zmm1
        vextracti64x4 $1,%zmm1,%ymm2; vextractf32x4 $1,%zmm1,%xmm2; vinsertf64x4 $1,%ymm1,%zmm2,%zmm3
        vpbroadcastd %eax,%zmm1; vpternlogq $9,%zmm1,%zmm2,%zmm3; vfmadd231ps (%rdi){1to16},%zmm1,%zmm2
        vfnmsub213sd %xmm1,%xmm17,%xmm2; vpermt2ps %zmm1,%zmm2,%zmm3; vpsravq %zmm1,%zmm2,%zmm3
        vrndscaleps $1,%zmm1,%zmm2; vscalefss %xmm1,%xmm2,%xmm3; vfixupimmps $1,%zmm1,%zmm2,%zmm3
        vmovntps %zmm1,(%rdi); vmovdqa32 %zmm1,%zmm2; vmovdqu64 (%rdi),%zmm1; valignq $1,%zmm1,%zmm2,%zmm3
        kmovw %eax,%k1; kunpckbw %k1,%k2,%k3; kortestw %k1,%k2; kxnorw %k1,%k2,%k3; kshiftlw $1,%k1,%k2; knotw %k1,%k2
        vandps %ymm1,%ymm2,%ymm3; vpshufb %ymm1,%ymm2,%ymm3; vpextrd $1,%xmm1,%eax; popcnt %eax,%ebx; rep bsf %eax,%ebx
        pop (%rdi); vzeroupper"""
}


def lines_of(text):
    return [line.strip() for line in text.replace("\n", ";").split(";")]


def assembled(lines, folder):
    """The instructions of one assembler line each. An assembler knows them all, whatever it is told of the target."""
    path = folder / "lines.s"
    path.write_text("".join(f"f{i}: {line}\n" for i, line in enumerate(lines)))
    subprocess.run([COMPILER, "-c", path, "-o", folder / "lines.o"], check=True)
    found = disassemble(folder / "lines.o")
    assert [i.function for i in found] == [f"f{i}" for i in range(len(lines))]
    return found


@needs_x86
@pytest.mark.parametrize("flag", BEYOND)
def test_every_other_instruction_is_found(tmp_path, flag):
    lines = lines_of(BEYOND[flag])
    for line, instruction in zip(lines, assembled(lines, tmp_path), strict=True):
        assert beyond_avx512f(instruction), line
        assert beyond_avx2(instruction), line
        assert beyond_sse2(instruction), line


@needs_x86
def test_nothing_of_avx512f_is_refused(tmp_path):
    lines = lines_of(WITHIN["avx512f"])
    for line, instruction in zip(lines, assembled(lines, tmp_path), strict=True):
        assert not beyond_avx512f(instruction), line
        assert bool(beyond_avx2(instruction)) == (instruction.encoding == "evex" or "%k" in line), line
        assert bool(beyond_sse2(instruction)) == (not line.startswith(("rep", "pop ("))), line


VECTORS = """#include <immintrin.h>
__m512 and(__m512 a, __m512 b) { return _mm512_and_ps(a, b); }
__m256 add(__m256 a, __m256 b, int m) { return _mm256_mask_add_ps(a, m, a, b); }
__m512 sum(__m512 a, __m512 b) { return a + b; }
"""
LOOP = """
void pick(int *p, int *q) { for (int i = 0; i < 999; i++) if (p[i] > 3) q[i] = p[i]; }
void times(long *p, long *q) { for (int i = 0; i < 999; i++) q[i] *= p[i]; }
"""
COUNT = """
int count(unsigned n) { return __builtin_popcount(n); }
"""
F = ["-mavx512f", "-mavx2", "-mfma"]


@needs_x86
def test_what_the_compiler_does_by_itself_is_found(tmp_path):
    def found(text, judge, *flags):
        return {i.function for i in disassemble(compiled(text, tmp_path, *flags)) if judge(i)}

    assert found(VECTORS, beyond_avx512f, *F, "-mavx512dq", "-mavx512vl") == {"and", "add"}
    assert found(LOOP, beyond_avx512f, *F) == set()
    assert found(LOOP, beyond_avx512f, *F, "-mavx512vl", "-mprefer-vector-width=256") >= {"pick"}
    assert found(LOOP, beyond_avx512f, *F, "-mavx512dq", "-mprefer-vector-width=512") == {"times"}
    assert found(LOOP, beyond_avx2, "-mavx2") == set() and found(LOOP, beyond_sse2, "-mavx2") == {"pick", "times"}
    assert found(COUNT, beyond_sse2, "-mpopcnt") == {"count"} and found(COUNT, beyond_sse2) == set()
