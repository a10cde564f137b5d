import CoreGraphics
import CoreML
import Foundation

/// A generator that `coronet export --to coreml` wrote, from one picture to one.
public final class Generator {
    private let model: MLModel
    private let input: String, output: String
    /// Height and width of its pictures.
    public let height: Int, width: Int

    public enum Failure: Error {
        case noPicture(String)
    }

    /// `url`: of the .mlpackage, which is compiled first, or of a compiled .mlmodelc as Xcode puts it into an app.
    public init(url: URL, units: MLComputeUnits = .all) throws {
        let compiled = url.pathExtension == "mlmodelc" ? url : try MLModel.compileModel(at: url)
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units
        model = try MLModel(contentsOf: compiled, configuration: configuration)
        let entrance = model.modelDescription.inputDescriptionsByName.first
        guard let (name, description) = entrance, let shape = description.multiArrayConstraint?.shape, shape.count == 4,
            let exit = model.modelDescription.outputDescriptionsByName.keys.first
        else { throw Failure.noPicture("\(url.lastPathComponent) is no generator from one picture to one") }
        (input, output) = (name, exit)
        (height, width) = (shape[2].intValue, shape[3].intValue)
    }

    /// Planes of red, green and blue, each number from -1 to 1: 3 * height * width, in and out.
    public func run(_ planes: [Float]) throws -> [Float] {
        guard planes.count == 3 * height * width else { throw Failure.noPicture("\(planes.count) numbers") }
        let array = try MLMultiArray(shape: [1, 3, height, width] as [NSNumber], dataType: .float32)
        array.withUnsafeMutableBufferPointer(ofType: Float.self) { numbers, _ in
            _ = numbers.update(fromContentsOf: planes)
        }
        let given = try MLDictionaryFeatureProvider(dictionary: [input: array])
        guard let found = try model.prediction(from: given).featureValue(for: output)?.multiArrayValue else {
            throw Failure.noPicture("the output is no array")
        }
        return (0..<found.count).map { found[$0].floatValue }
    }

    /// A picture of any size, scaled to the generator's.
    public func translate(_ picture: CGImage) throws -> CGImage {
        var bytes = [UInt8](repeating: 255, count: 4 * height * width)
        let area = height * width
        func context(_ pixels: UnsafeMutableRawPointer) throws -> CGContext {
            let info = CGImageAlphaInfo.noneSkipLast.rawValue
            guard let made = CGContext(
                data: pixels, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 4 * width,
                space: CGColorSpaceCreateDeviceRGB(), bitmapInfo: info)
            else { throw Failure.noPicture("no memory") }
            return made
        }
        try bytes.withUnsafeMutableBytes { pixels in
            let canvas = try context(pixels.baseAddress!)
            canvas.interpolationQuality = .high
            canvas.draw(picture, in: CGRect(x: 0, y: 0, width: width, height: height))
        }
        var planes = [Float](repeating: 0, count: 3 * area)
        for i in 0..<area {
            for colour in 0..<3 { planes[colour * area + i] = Float(bytes[4 * i + colour]) / 127.5 - 1 }
        }
        let made = try run(planes)
        for i in 0..<area {
            for colour in 0..<3 {
                let level = ((made[colour * area + i] + 1) * 127.5).rounded()
                bytes[4 * i + colour] = UInt8(min(255, max(0, level)))
            }
        }
        let image = try bytes.withUnsafeMutableBytes { pixels in try context(pixels.baseAddress!).makeImage() }
        guard let image else { throw Failure.noPicture("no memory") }
        return image
    }
}
