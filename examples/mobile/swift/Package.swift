// swift-tools-version:5.9
import PackageDescription

let package = Package(
    name: "Coronet",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [.library(name: "Coronet", targets: ["Coronet"])],
    targets: [
        .target(name: "Coronet"),
        .executableTarget(name: "translate", dependencies: ["Coronet"]),
    ]
)
