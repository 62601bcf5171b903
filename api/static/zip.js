/** A ZIP archive of blobs, stored as they are: PNG does not get smaller. */

const LIMIT = 2 ** 32 - 1;
const UTF8_NAMES = 0x0800;
const VERSION = 20;

const CRC_TABLE = new Uint32Array(256).map((_, index) => {
  let crc = index;
  for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  return crc;
});

/** Return a ZIP Blob of [{ name, blob }]. Throws where it would pass ZIP's 4 GiB or 65,535 files. */
export async function zip(files, now = new Date()) {
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, blob } of files) {
    const fields = await describe(name, blob, now);
    const local = header(0x04034b50, fields, []);
    directory.push(header(0x02014b50, fields, [[2, 0], [2, 0], [2, 0], [4, 0], [4, offset]]));
    parts.push(local, blob);
    offset += local.byteLength + blob.size;
  }
  const directorySize = directory.reduce((sum, entry) => sum + entry.byteLength, 0);
  if (offset + directorySize > LIMIT || files.length > 0xffff) {
    throw new Error("The photos are more than fits into one ZIP file. Remove some, or download them one by one.");
  }
  const count = files.length;
  const end = pack([[4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, directorySize], [4, offset], [2, 0]]);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}

async function describe(name, blob, now) {
  const time = (now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1);
  const date = ((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate();
  const crc = crc32(new Uint8Array(await blob.arrayBuffer()));
  return { name: new TextEncoder().encode(name), crc, size: blob.size, time, date };
}

/** Return a local header, or with `more` fields a directory entry, which starts with one version more. */
function header(signature, { name, crc, size, time, date }, more) {
  const versions = more.length ? [[2, VERSION], [2, VERSION]] : [[2, VERSION]];
  const common = [[2, UTF8_NAMES], [2, 0], [2, time], [2, date], [4, crc], [4, size], [4, size]];
  const fields = pack([[4, signature], ...versions, ...common, [2, name.length], [2, 0], ...more]);
  const bytes = new Uint8Array(fields.length + name.length);
  bytes.set(fields);
  bytes.set(name, fields.length);
  return bytes;
}

/** Return little-endian bytes of [[width, value]]. */
function pack(fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [width]) => sum + width, 0)));
  let at = 0;
  for (const [width, value] of fields) {
    if (width === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += width;
  }
  return new Uint8Array(view.buffer);
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
