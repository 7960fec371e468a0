// SPDX-License-Identifier: Apache-2.0

import java.io.*;
import java.lang.ref.WeakReference;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import java.util.zip.CRC32;

/**
 * What Java programs do with a kernel: compiled code, threads, collections, files,
 * sockets, children, and faults that are exceptions. Each part prints what it came
 * to, which depends on nothing but the program.
 */
public class Work {
    interface Part { String run() throws Exception; }

    static int failed;

    static void part(String name, Part p) {
        try {
            System.out.println("RESULT pass " + name + " = " + p.run());
        } catch (Throwable t) {
            failed++;
            t.printStackTrace(System.out);
            System.out.println("RESULT fail " + name);
        }
        System.out.flush();
    }

    public static void main(String[] args) throws Exception {
        Path dir = Files.createTempDirectory("work");
        part("compiled code", Work::compiled);
        part("threads", Work::threads);
        part("parking", Work::parking);
        part("interrupts", Work::interrupts);
        part("collections", Work::collections);
        part("null pointers", Work::nullPointers);
        part("divisions", Work::divisions);
        part("deep stacks", Work::deepStacks);
        part("hot reads", Work::hotReads);
        part("files", () -> files(dir));
        part("mapped files", () -> mapped(dir));
        part("sockets", Work::sockets);
        part("selectors", Work::selectors);
        part("children", Work::children);
        part("timers", Work::timers);
        System.exit(failed == 0 ? 0 : 1);
    }

    static long mix(long h, long v) {
        h ^= v;
        h *= 0x9E3779B97F4A7C15L;
        return h ^ (h >>> 29);
    }

    // Long enough for all compilers of the machine.
    static String compiled() {
        long h = 1;
        double d = 0;
        for (int round = 0; round < 200; round++) {
            for (int i = 0; i < 10_000; i++) {
                h = mix(h, i * (long) round);
                d += Math.sqrt(i + round) * ((h & 1) == 0 ? 1 : -1);
            }
        }
        return Long.toHexString(h) + " " + Double.doubleToLongBits(d);
    }

    static String threads() throws Exception {
        ExecutorService pool = Executors.newFixedThreadPool(8);
        AtomicLong atomic = new AtomicLong();
        long[] locked = {0};
        List<Future<Long>> all = new ArrayList<>();
        for (int t = 0; t < 32; t++) {
            final int seed = t;
            all.add(pool.submit(() -> {
                long h = seed;
                for (int i = 0; i < 2000; i++) {
                    h = mix(h, i);
                    atomic.incrementAndGet();
                    synchronized (locked) { locked[0] += i; }
                }
                return h;
            }));
        }
        long sum = 0;
        for (Future<Long> f : all) sum += f.get();
        pool.shutdown();
        if (!pool.awaitTermination(300, TimeUnit.SECONDS)) throw new Exception("threads do not end");
        return sum + " " + atomic.get() + " " + locked[0];
    }

    // Two threads in turn: each step is a futex call and a switch.
    static String parking() throws Exception {
        final int steps = 2000;
        AtomicLong turn = new AtomicLong();
        Thread[] both = new Thread[2];
        for (int n = 0; n < 2; n++) {
            final int me = n;
            both[n] = new Thread(() -> {
                for (long i = me; i < 2 * steps; i += 2) {
                    while (turn.get() != i) LockSupport.parkNanos(100_000_000);
                    turn.incrementAndGet();
                    LockSupport.unpark(both[1 - me]);
                }
            });
        }
        for (Thread t : both) t.start();
        for (Thread t : both) t.join();
        return "" + turn.get();
    }

    static String interrupts() throws Exception {
        int n = 0;
        for (int i = 0; i < 50; i++) {
            CountDownLatch begun = new CountDownLatch(1);
            boolean[] seen = {false};
            Thread t = new Thread(() -> {
                begun.countDown();
                try { Thread.sleep(600_000); } catch (InterruptedException e) { seen[0] = true; }
            });
            t.start();
            begun.await();
            t.interrupt();
            t.join();
            if (seen[0]) n++;
        }
        return "" + n;
    }

    static String collections() {
        Map<Integer, byte[]> live = new HashMap<>();
        long h = 7;
        for (int i = 0; i < 60_000; i++) {
            byte[] b = new byte[(i * 37) % 4000 + 8];
            b[0] = (byte) i;
            live.put(i % 500, b);
        }
        for (int i = 0; i < 500; i++) h = mix(h, live.get(i)[0] + live.get(i).length);
        WeakReference<Object> weak = new WeakReference<>(new Object());
        for (int i = 0; i < 20 && weak.get() != null; i++) System.gc();
        return Long.toHexString(h) + " " + (weak.get() == null);
    }

    static int length(String s) { return s.length(); }

    // In compiled code a null pointer is a fault, which the machine catches.
    static String nullPointers() {
        int caught = 0, sum = 0;
        for (int i = 0; i < 50_000; i++) {
            try { sum += length(i % 10_000 == 9_999 ? null : "abc"); } catch (NullPointerException e) { caught++; }
        }
        return caught + " " + sum;
    }

    static int divide(int a, int b) { return a / b; }

    static String divisions() {
        int caught = 0, sum = 0;
        for (int i = 0; i < 50_000; i++) {
            try { sum += divide(i, i % 5000); } catch (ArithmeticException e) { caught++; }
        }
        return caught + " " + sum;
    }

    static int deep(int n) { return deep(n + 1) + 1; }

    static String deepStacks() {
        int caught = 0;
        for (int i = 0; i < 10; i++) {
            try { deep(0); } catch (StackOverflowError e) { caught++; }
        }
        return "" + caught;
    }

    static String hotReads() throws Exception {
        long n = 0;
        try (FileInputStream zero = new FileInputStream("/dev/zero"); FileOutputStream none = new FileOutputStream("/dev/null")) {
            for (int i = 0; i < 30_000; i++) {
                n += zero.read() + 1;
                none.write(i);
            }
        }
        return "" + n;
    }

    static byte[] bytes(int size) {
        byte[] b = new byte[size];
        long h = 3;
        for (int i = 0; i < size; i++) {
            h = mix(h, i);
            b[i] = (byte) h;
        }
        return b;
    }

    static String files(Path dir) throws Exception {
        CRC32 crc = new CRC32();
        for (int i = 0; i < 50; i++) Files.write(dir.resolve("f" + i), bytes(i * 331));
        Files.move(dir.resolve("f7"), dir.resolve("moved"));
        Files.delete(dir.resolve("f8"));
        List<String> names = new ArrayList<>();
        try (DirectoryStream<Path> s = Files.newDirectoryStream(dir)) {
            for (Path p : s) names.add(p.getFileName().toString());
        }
        Collections.sort(names);
        for (String n : names) crc.update(Files.readAllBytes(dir.resolve(n)));
        return names.size() + " " + crc.getValue();
    }

    static String mapped(Path dir) throws Exception {
        byte[] b = bytes(1 << 20);
        CRC32 crc = new CRC32();
        try (FileChannel c = FileChannel.open(dir.resolve("mapped.bin"), StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            var m = c.map(FileChannel.MapMode.READ_WRITE, 0, b.length);
            m.put(b);
            m.force();
            m.rewind();
            crc.update(m);
        }
        crc.update(Files.readAllBytes(dir.resolve("mapped.bin")));
        return "" + crc.getValue();
    }

    static String sockets() throws Exception {
        InetAddress here = InetAddress.getByName("127.0.0.1");
        try (ServerSocket server = new ServerSocket(0, 16, here)) {
            ExecutorService pool = Executors.newCachedThreadPool();
            Future<?> echo = pool.submit(() -> {
                for (int i = 0; i < 4; i++) {
                    Socket s = server.accept();
                    pool.submit(() -> {
                        try (s) { s.getInputStream().transferTo(s.getOutputStream()); }
                        return null;
                    });
                }
                return null;
            });
            long total = 0;
            CRC32 crc = new CRC32();
            for (int i = 0; i < 4; i++) {
                try (Socket s = new Socket(here, server.getLocalPort())) {
                    byte[] want = bytes(1000 + i);
                    for (int n = 0; n < 200; n++) {
                        s.getOutputStream().write(want);
                        byte[] got = s.getInputStream().readNBytes(want.length);
                        crc.update(got);
                        total += got.length;
                    }
                }
            }
            echo.get();
            pool.shutdown();
            return total + " " + crc.getValue();
        }
    }

    static String selectors() throws Exception {
        try (Selector sel = Selector.open(); ServerSocketChannel server = ServerSocketChannel.open()) {
            server.bind(new InetSocketAddress("127.0.0.1", 0));
            server.configureBlocking(false);
            server.register(sel, SelectionKey.OP_ACCEPT);
            int port = ((InetSocketAddress) server.getLocalAddress()).getPort();
            final int clients = 10, messages = 50;
            Thread[] all = new Thread[clients];
            AtomicLong wrong = new AtomicLong();
            for (int c = 0; c < clients; c++) {
                final byte[] text = ("client " + c + "\n").getBytes(StandardCharsets.UTF_8);
                all[c] = new Thread(() -> {
                    try (Socket s = new Socket("127.0.0.1", port)) {
                        for (int i = 0; i < messages; i++) {
                            s.getOutputStream().write(text);
                            if (!Arrays.equals(s.getInputStream().readNBytes(text.length), text)) wrong.incrementAndGet();
                        }
                    } catch (IOException e) { wrong.incrementAndGet(); }
                });
                all[c].start();
            }
            int open = 0, closed = 0;
            ByteBuffer b = ByteBuffer.allocate(4096);
            while (closed < clients) {
                sel.select();
                for (Iterator<SelectionKey> i = sel.selectedKeys().iterator(); i.hasNext(); i.remove()) {
                    SelectionKey k = i.next();
                    if (k.isAcceptable()) {
                        SocketChannel s = server.accept();
                        if (s == null) continue;
                        s.configureBlocking(false);
                        s.register(sel, SelectionKey.OP_READ);
                        open++;
                        continue;
                    }
                    SocketChannel s = (SocketChannel) k.channel();
                    b.clear();
                    if (s.read(b) < 0) {
                        s.close();
                        closed++;
                        continue;
                    }
                    for (b.flip(); b.hasRemaining(); ) s.write(b);
                }
            }
            for (Thread t : all) t.join();
            return open + " " + wrong.get();
        }
    }

    static String children() throws Exception {
        StringBuilder out = new StringBuilder();
        for (int i = 0; i < 10; i++) {
            Process p = new ProcessBuilder("sh", "-c", "read line; echo got $line; exit " + i).redirectErrorStream(true).start();
            try (Writer w = new OutputStreamWriter(p.getOutputStream())) { w.write("line" + i + "\n"); }
            String got = new String(p.getInputStream().readAllBytes(), StandardCharsets.UTF_8).trim();
            out.append(got).append(' ').append(p.waitFor()).append(", ");
        }
        Process p = new ProcessBuilder("sleep", "600").start();
        p.destroy();
        return out.toString() + p.waitFor();
    }

    static String timers() throws Exception {
        ScheduledExecutorService s = Executors.newScheduledThreadPool(2);
        AtomicLong n = new AtomicLong();
        long begin = System.nanoTime();
        List<ScheduledFuture<?>> all = new ArrayList<>();
        for (int i = 0; i < 50; i++) all.add(s.schedule(n::incrementAndGet, i * 4, TimeUnit.MILLISECONDS));
        for (ScheduledFuture<?> f : all) f.get();
        long ms = (System.nanoTime() - begin) / 1_000_000;
        s.shutdownNow();
        return n.get() + " " + (ms >= 195);
    }
}
