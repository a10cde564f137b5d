// swift run translate G_fp16.mlpackage IN.png OUT.png
import Coronet
import Foundation
import ImageIO
import UniformTypeIdentifiers

let words = CommandLine.arguments
guard words.count == 4 else {
    FileHandle.standardError.write(Data("usage: translate G.mlpackage IN OUT.png\n".utf8))
    exit(2)
}
let urls = words.dropFirst().map { URL(fileURLWithPath: $0) }
guard let source = CGImageSourceCreateWithURL(urls[1] as CFURL, nil),
    let picture = CGImageSourceCreateImageAtIndex(source, 0, nil),
    let destination = CGImageDestinationCreateWithURL(urls[2] as CFURL, UTType.png.identifier as CFString, 1, nil)
else {
    FileHandle.standardError.write(Data("\(words[2]) or \(words[3]) cannot be opened\n".utf8))
    exit(2)
}
let generator = try Generator(url: urls[0])
let start = Date()
CGImageDestinationAddImage(destination, try generator.translate(picture), nil)
print(String(format: "%.1f ms", 1000 * Date().timeIntervalSince(start)))
guard CGImageDestinationFinalize(destination) else { exit(1) }
